// The first process of every pod: it holds the pod's namespaces.
module fourfold.test/cluster/pause

go 1.26

tool fourfold.test/cluster/pause
