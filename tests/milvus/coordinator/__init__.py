"""Who plays DataCoord for the real Milvus: stock's own, or ours with stock's held in standby."""
