// A recipe, not a program of ours: it pins the etcd that `quorate-chaos bench` compares against.
module quorate.dev/bench/etcd

go 1.26.0

require go.etcd.io/etcd/server/v3 v3.7.3
