// Command coredns is CoreDNS with only the three plugins that the test cluster's Corefile uses. The published program
// has fifty plugins, whose dependencies take four minutes to compile.
package main

import (
	_ "github.com/coredns/coredns/plugin/bind"
	_ "github.com/coredns/coredns/plugin/errors"
	_ "github.com/coredns/coredns/plugin/kubernetes"

	"github.com/coredns/coredns/coremain"
)

func main() {
	coremain.Run()
}
