package tests

import (
	"fmt"
	"testing"
)

// TestClassicGuest mounts with the oldest dialect that Linux has. It knows errors
// by their texts alone, and shows the right numbers only for those that are
// strerror's to the letter.
func TestClassicGuest(t *testing.T) {
	s := startServer(t)
	p := startSpawner(t)
	g := startGuest(t, nil, fmt.Sprintf(`
		exec 2>&1
		mount -t 9p -o trans=tcp,port=%s,version=9p2000,cache=none,aname=all 10.0.2.2 /mnt || exit 1
		cd /mnt
		mkdir Charlie
		mkdir Charlie
		ls -d Charlie Charlie/cpuset.cpus
		mkdir Charlie/sub
		chmod 700 Charlie/sub
		stat -c '%%A %%F' Charlie/sub
		mv Charlie/sub Charlie/Sub
		mv Charlie/Sub Charlie/tasks
		cd Charlie/Sub && cd ../.. && ls -d Charlie/Sub
		rmdir Charlie
		rmdir Charlie/Sub
		echo 0 > Charlie/cpuset.cpus
		echo 0 > Charlie/cpuset.mems
		cat Charlie/cpuset.cpus
		echo 1 >> Charlie/notify_on_release
		cat Charlie/notify_on_release
		echo %[2]d > Charlie/tasks
		grep -x %[2]d Charlie/tasks > /dev/null && echo moved
		rmdir Charlie
		echo %[2]d > tasks
		echo rubbish > Charlie/cpuset.cpus
		echo 99999999999999999999 > Charlie/notify_on_release
		echo 1 > Charlie/populated
		cat Charlie/last_cmd_status
		: > Charlie/cpuset.cpus
		cat Charlie/cpuset.cpus
		rm Charlie/tasks
		mv Charlie/tasks Charlie/x
		cat Charlie/nosuch
		touch Charlie
		rmdir Charlie
		ls -d Charlie
		for i in 1 2 3 4 5 6 7 8 9; do mkdir $i; done
		echo [0-9]
		rmdir [0-9]
		echo [0-9]
		mkdir -p Delta/a/b Delta/c
		find Delta -depth -type d -exec rmdir {} +
		ls -d Delta
		cd /
		umount /mnt
	`, s.port, p.pid()))
	const want = `mkdir: can't create directory 'Charlie': File exists
Charlie
Charlie/cpuset.cpus
drwx------ directory
mv: can't rename 'Charlie/Sub': Not a directory
Charlie/Sub
rmdir: 'Charlie': Device or resource busy
0
1
moved
rmdir: 'Charlie': Device or resource busy
sh: write error: Invalid argument
sh: write error: Numerical result out of range
sh: write error: Invalid argument
write /Charlie/populated
it cannot be written: invalid argument
0
rm: can't remove 'Charlie/tasks': Operation not permitted
mv: can't rename 'Charlie/tasks': Not a directory
cat: can't open 'Charlie/nosuch': No such file or directory
ls: Charlie: No such file or directory
1 2 3 4 5 6 7 8 9
[0-9]
ls: Delta: No such file or directory
`
	if got := g.finish(); got != want {
		t.Errorf("the guest saw:\n%s\nwant:\n%s", got, want)
	}
}
