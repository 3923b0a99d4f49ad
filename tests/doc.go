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
package tests
