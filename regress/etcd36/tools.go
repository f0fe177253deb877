//go:build tools

// tools.go - names etcdctl, so that go.mod and go.sum pin it beside the server.
//
// Never compiled (the tag is set by nobody); ./build names the package on go's command line.
//
// SPDX-License-Identifier: Apache-2.0
package main

import (
	_ "go.etcd.io/etcd/etcdctl/v3"
	_ "go.etcd.io/etcd/etcdutl/v3"
)
