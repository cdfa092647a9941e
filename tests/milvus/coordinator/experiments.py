SETTINGS = {}
def run(stage):
    import time
    from workload import run as work
    work(stage.calls, (2000, 2), "probe")
    m = stage.metastore()
    print(m.checkpoints, m.watches(), m.homeless)
    for s in m.segments.values(): print(s)
    print(stage.call("GetComponentStates", "milvus.GetComponentStatesRequest", "milvus.ComponentStates"))
    stage.history.events()
