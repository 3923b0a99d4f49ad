// Package tests has the tests of the whole server: the built command, real
// processes of this host, and a guest's kernel that mounts it. There is nothing
// else in it.
//
// A test that needs more than it finds (root, a guest) fails and says what is
// missing. CONTAINERFS_SKIP=guest,host skips those that need a guest, those that
// need root on the host, or both, and says so.
//
// Every test leaves the host as it was: processes are the test's own and are
// waited for, servers are ended and must end well, sockets are gone.
//
// # Other architectures
//
// The guest is amd64's, and so is what is tested all the time. By hand was run, in
// a guest like that of the program guest, with an own kernel of Debian, in QEMU 7.2
// without KVM (qemu-system-aarch64 -M virt -cpu max,pauth-impdef=on, with console=ttyAMA0):
//
//   - arm64, Linux 6.1 with pages of 4 KiB: the tests of tree/kernfs, tree/hostproc,
//     ops/store, p9srv/sock, of p9srv about who a peer is, of subsys/bc, cpuacct,
//     cpuset, numtasks and controller, three of tests/storm, and a server: mounted over TCP and a
//     unix socket, with moves, limits of pids and memory of cgroup version 2, killed
//     and started again; that also as a program for arm of 32 bits.
//   - arm64, Linux 6.18 with pages of 16 KiB: those of tree/hostproc that want a
//     Linux from 6.13 on, of subsys/bc, some of ops/store and cpuacct, and that server.
//   - 386, on an amd64 host: GOARCH=386 go test of tree, tree/hostproc, tree/kernfs,
//     p9srv, ops, ops/store and the subsystems, of tests/storm and a part of this.
//
// For arm64 they are cross-compiled, GOARCH=arm64 go test -c, and copied in. The
// guest must have the users that tests name, as daemon (1) and sys.
package tests
