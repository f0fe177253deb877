// main.go - a real etcd 3.6 server, the reference of the end-to-end tests.
//
// Responsible for nothing but starting etcd's own main: flags, data and behaviour are those of
// the etcd release that go.mod pins.  Debian 12 only has 3.4, whose API differs.  Built by
// ./build, started by class Etcd in regress/lib/t4test.py.
//
// SPDX-License-Identifier: Apache-2.0
package main

import (
	"os"

	"go.etcd.io/etcd/server/v3/etcdmain"
)

func main() {
	etcdmain.Main(os.Args)
}
