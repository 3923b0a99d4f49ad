package main

import "strings"

// The page of control files and of the commands of ctl. A test compares it with what a
// server has: see tests/files_test.go.

// fileDoc is what the page says of files that have a mode and a meaning in common.
type fileDoc struct {
	names string // separated by spaces
	mode  string
	text  string
}

// fileSection is a section of the page.
type fileSection struct {
	title, intro string
	files        []fileDoc
}

// ctlDoc is what the page says of a command of ctl.
type ctlDoc struct{ word, args, text string }

const filesIntro = `A container is a directory, with these files and those of the subsystems of its
hierarchy. A file of a subsystem has the subsystem's name and a dot before its own,
as in cpuset.cpus, unless the hierarchy is mounted with noprefix.

One write is one command, of at most 4096 bytes (E2BIG): all of it is done or nothing,
and the offset says nothing. One newline at the end may be there. A read sees the value
as it was when the file was opened. What the text below calls

 a number   is decimal digits only: EINVAL for anything else, as an empty text, a
            sign or a space; ERANGE for one that is too big
 a flag     is a number, of which 0 clears and any other sets; it reads as 0 or 1
 a list     is numbers a or ranges a-b joined by commas, as 0-3,7; it is shown
            ascending and merged, nothing written clears it, an empty one reads as
            an empty line; a comma may be at its end; EINVAL for a range that descends,
            an empty element or anything else

The modes are those that files are made with; their owner is who made the container,
of a hierarchy's root the server's user. Opening takes what they say: EACCES, but not for
root and the server's user, who are privileged. chmod and chown change them. Reading what
has no reader and writing what has no writer is EINVAL. In a container that was removed
everything is ENODEV, from a listener with access=ro every change is EROFS, and with a
state directory that cannot be written ENOSPC, EROFS or EIO.

9P has a number for an error and no words. Why it was is in last_cmd_status, a file that
each directory has but those of proc, and that none lists: it reads as ok, or as a line
of what was refused last and a line of why, of all that came by the same attach, which is
the same mount by the same user. A change that succeeds makes it ok again. What the client's
kernel refuses itself, as by the modes of files, is not in it, nor a walk to what is not there:
look at the first line. The commands of containerfs say it themselves.`

var fileSections = []fileSection{
	{"THE TOP DIRECTORY", "What is in / of a server, beside the hierarchies. A client that is confined by attach= has none of it.", []fileDoc{
		{"ctl", "0666", `Commands, see below. It reads as a line for each active hierarchy, its name and its
options, with (unmounted) after those that are kept only by their containers; and lines
that begin with # and say what is in force: how the server learns of the host's events,
whether the mirror is on, which host it is on, what became of the state directory, and for
each subsystem what the host allows of it.`},
		{"containers", "0444", `A table, columns separated by tabs: the name of each subsystem, the number of the
hierarchy that it is bound to (0: none), how many containers that has, and 1.`},
		{"events", "0440", `The log of all events, to be read at any offset, as by tail -f: a line for each,
of nanoseconds of CLOCK_MONOTONIC, the kind, and key=value pairs. Kinds and keys: fork and
exec (pid, tgid, parent, uid, exe), exit (pid, tgid), uid (pid, tgid, and ruid with uid or
rgid with gid), attach (pid, tgid, hierarchy, from, to, and by=rules), mkdir, rmdir and
release (hierarchy, path), rename (hierarchy, path, from), limit (hierarchy, path, over,
which is the file of the limit), mount, remount and umount (hierarchy, options), lost
(count, and queue=rules). Values that could be mistaken are quoted. It holds 16 MiB; who
reads what was dropped gets the oldest line that is there.`},
		{"rules", "0444", `The classification rules in force as a rules file, with counts in comments; see
containerfs rules --help. Without rules it is "# no rules".`},
		{"proc/PID/container", "0444", `Where a process is: a line for each active hierarchy, the newest first, with its
subsystems, a colon and the container's path. PID can be a thread's, which proc does not
list. If a process's first thread has ended, it is where one of the others is. ENOENT when there is
no such task, ESRCH when it has ended since.`},
		{"proc/PID/cpuset", "0444", `The path of the container that the process is in, in the hierarchy of cpuset.`},
	}},
	{"EVERY CONTAINER", "", []fileDoc{
		{"tasks", "0644", `The threads in the container, a number a line, ascending; as of the open. Write the
number of one to move that thread alone. EINVAL for 0, for what is no number and for a
kernel thread that the kernel does not move; ERANGE; ESRCH when there is no such thread,
or it is a zombie; EACCES unless the caller is privileged or the thread's real or saved
user, for the server, its ancestors and process 1 unless he is privileged and on a unix
socket, and for a network caller who may not write to the tasks that it leaves; ENOSPC
where cpuset.cpus or cpuset.mems is empty; EOPNOTSUPP for one thread of several where a
controller of cgroup version 2 is bound; EPERM by the rules of ns; EAGAIN when threads are
made faster than they can be moved; and what the host says of a subsystem's part, as
EINVAL for CPUs that the host does not let the thread have. After an error the thread is
where it was.`},
		{"procs", "0644", `The processes with a thread in the container, likewise. Write a process's number, or
that of any of its threads, to move all of its threads. Errors as for tasks.`},
		{"notify_on_release", "0644", `A flag, which a new container has from its parent: tell when the container is
released, that is when the last task, child or reference of a subsystem has gone. Then there
is a release event, and the hierarchy's release_agent runs. Of a root nothing is told. Setting it
for a container that is idle already tells nothing.`},
		{"releasable", "0444", `1 when a task, child or reference has gone from the container since
notify_on_release was written, else 0.`},
		{"populated", "0444", `1 while there is a task in the container or below, else 0.`},
	}},
	{"ROOT CONTAINERS", "What only the root of a hierarchy has.", []fileDoc{
		{"release_agent", "0644", `The absolute path of the program that runs when a container is released; empty for
none. Its one argument is the container's path in the hierarchy. It has the environment
HOME=/ and PATH=/sbin:/bin:/usr/sbin:/usr/bin, half a minute, and 7 others beside it at
most. EPERM unless the server was started with --allow-release-agent and the caller is
privileged and on a unix socket; EINVAL for another path; ENAMETOOLONG over 4095 bytes.`},
		{"events", "0440", `The events of this hierarchy, as in /events: those that have its name, and lost.`},
	}},
	{"OTHER CONTAINERS", "What all but roots have.", []fileDoc{
		{"kill", "0200", `Write 1 to kill every process with a thread in the container or below, those born
meanwhile included; the write returns when none is left. Anything else is EINVAL. EACCES, and
none is killed, unless the caller may move each of them; the server, its ancestors and
process 1 are killed by nobody. EAGAIN when some are left after half a minute.`},
		{"max.descendants max.depth", "0644", `How many containers there may be below this one, and how many levels deep: a number
up to 2147483647, or max for no limit, which it is at first. mkdir over it is EAGAIN. A limit
can be lower than what there is.`},
	}},
	{"SUBSYSTEM cpuset", `Which CPUs tasks run on, and which memory nodes their memory is in. A new container
has empty cpuset.cpus and cpuset.mems, and takes no task before both are written; one that a
rule or ns makes has its parent's. A change is
looked at in this order: EINVAL for a CPU or node that is not online; EBUSY when a child would not
be contained any more; EACCES when the parent lacks some of it, or its exclusive flag; EINVAL when
it overlaps with a sibling and one of the two is exclusive; ENOSPC when there are tasks and
cpuset.cpus or cpuset.mems would be empty.`, []fileDoc{
		{"cpuset.cpus cpuset.mems", "0644", `A list of CPUs, and one of memory nodes: those in force. In a root they are the
online ones and cannot be written (EACCES). The affinity of each thread in the container is
kept within cpuset.cpus: at once, and within a second where a thread has changed it. Back in the
root a thread has the CPUs that it had before.`},
		{"cpuset.cpu_exclusive cpuset.mem_exclusive", "0644", `A flag: no sibling may have any of these CPUs, or nodes. The parent's has to be set.
It is 1 in a root, else 0 at first.`},
		{"cpuset.memory_migrate", "0644", `A flag: pages of a process move to the new nodes when it is attached and when
cpuset.mems is written.`},
		{"cpuset.sched_load_balance cpuset.memory_spread_page cpuset.memory_spread_slab", "0644", `The kernel's, which are there with --enable cpuset where the kernel has them.`},
		{"cpuset.memory_pressure cpuset.memory_pressure_enabled", "0444", `The kernel's, likewise; the second is the whole host's, and can only be read.`},
	}},
	{"SUBSYSTEM cpuacct", "The CPU time that tasks used while they were in the container or below, which stays when they leave. It counts from the moment when the subsystem is bound.", []fileDoc{
		{"cpuacct.usage", "0644", `Nanoseconds. Write 0 to have usage and stat of this container begin at 0 again;
EINVAL for anything else, ERANGE over 64 bits.`},
		{"cpuacct.stat", "0444", `"user N" and "system N", each on a line, in 1/100 s.`},
		{"cpuacct.load", "0444", `The CPU time of the last full interval of 10 s, in per cent of one CPU: 200 is two
CPUs all the time.`},
	}},
	{"SUBSYSTEM debug", "What the server itself counts.", []fileDoc{
		{"debug.container_refcount", "0444", `How many css groups with tasks, and references of subsystems, hold the container.`},
		{"debug.taskcount", "0444", `How many tasks are in the container.`},
		{"debug.current_css_group debug.current_css_group_refcount", "0444", `The number of the server's own css group, and how many tasks that has.`},
		{"debug.css_groups", "0444", `A line for each css group with tasks in the container: its number and how many
tasks it has.`},
	}},
	{"SUBSYSTEM ns", `It has no files. It is there with --enable ns, and gives each process with new
namespaces a container node_PID. In its hierarchy tasks move only into an empty child of their
container, and only for privileged callers, who alone can make containers there: else EPERM.
What it has made stays when it is empty: with notify_on_release set at the hierarchy's root, which
is inherited, a release_agent can remove it.`, nil},
	{"SUBSYSTEM numtasks", `How many tasks, that is threads, there may be in a container and below. The limit is a
share of the parent's:

  numtasks.limit = parent's numtasks.limit * max_shares / parent's child_shares_divisor

rounded down. The root's numtasks.limit is how many tasks the machine can have, the lesser of
kernel.threads-max and kernel.pid_max. To give containers a limit in tasks, make the root's
divisor the root's limit: a share is one task then. To limit /all/Charlie to 50:

  containerfs write /all/numtasks.shares child_shares_divisor=$(containerfs read /all/numtasks.limit)
  containerfs write /all/Charlie/numtasks.shares max_shares=50

A fork over the limit is counted, and a limit event tells of it. With numtasks.policy the new process
is killed; where the kernel's pids is bound to the same hierarchy the fork fails with EAGAIN. Moving tasks
into the container is never refused.`, []fileDoc{
		{"numtasks.shares", "0644", `Reads as res=numtasks,min_shares=N,max_shares=N,child_shares_divisor=N. Write any of
these pairs, joined by commas. min_shares is what the container is guaranteed towards its
siblings, max_shares what it may have, both as parts of the parent's child_shares_divisor, which
is 100 at first. -3, which shares are at first, is don't care: no limit of its own, and none
below. -1 leaves a value as it is. EINVAL for another key, one that is there twice, res that is not numtasks,
other negative numbers and what is no number, a divisor of -3; min_shares over what the
parent has left, max_shares over the parent's divisor, a divisor under the children's min_shares
together or under a child's max_shares, min_shares over max_shares; and in a root any share but -3.
ERANGE over 2147483647.`},
		{"numtasks.limit", "0444", `How many tasks that comes to, or max. It cannot be written: see numtasks.shares.`},
		{"numtasks.stats", "0444", `Four lines: "numtasks: Current usage N", the tasks in the container and below;
"numtasks: Number of successes N" and "numtasks: Number of failures N", forks under and over a
limit; "numtasks: Number of forkrate failures 0". A failure is the container's whose limit it was, but
of forks that the kernel's pids refuses in version 1, or before Linux 6.11, the container's in which they were made.`},
		{"numtasks.policy", "0644", `What is done with a new process over the limit: count, which it is at first, or kill.
EPERM for who sets kill and is not privileged; EINVAL for another word.`},
	}},
	{"SUBSYSTEM bc", `What processes in a container and below hold of four resources: numproc, tasks (threads,
too); numfile, file descriptors; physpages, resident pages; lockedpages, locked pages. Pages are the host's,
of getconf PAGESIZE bytes. numproc is exact; the others are measured when they are read, and once a second.
Files of what the host cannot measure are not there. A bound that nobody has set is 9223372036854775807.

When held goes over the barrier or the limit, failcnt goes up and a limit event tells of it. The limits
of numfile and lockedpages become RLIMIT_NOFILE and RLIMIT_MEMLOCK of each process, if the server has
CAP_SYS_RESOURCE; limits of a root bound nobody. Where the kernel's pids or memory is bound to the same hierarchy it keeps the
limit of numproc or physpages; what it refuses is in its own files, as pids.events, and not in failcnt.`, []fileDoc{
		{"bc.numproc.held bc.numfile.held bc.physpages.held bc.lockedpages.held", "0444", `What is held now.`},
		{"bc.numproc.maxheld bc.numfile.maxheld bc.physpages.maxheld bc.lockedpages.maxheld", "0444", `The most that was held.`},
		{"bc.numproc.minheld bc.numfile.minheld bc.physpages.minheld bc.lockedpages.minheld", "0444", `The least that was held while there were tasks; 0 before there were.`},
		{"bc.numproc.barrier bc.numfile.barrier bc.physpages.barrier bc.lockedpages.barrier", "0644", `A number up to 9223372036854775807, in the unit of the resource. EINVAL over the
limit: to raise both, write the limit first.`},
		{"bc.numproc.limit bc.numfile.limit bc.physpages.limit bc.lockedpages.limit", "0644", `Likewise. EINVAL under the barrier: to lower it, and to set the first one, write the
barrier first. Where the kernel keeps it, the kernel's errno.`},
		{"bc.numproc.failcnt bc.numfile.failcnt bc.physpages.failcnt bc.lockedpages.failcnt", "0444", `How often held went over a bound.`},
		{"bc.resources", "0444", `All of them as the table user_beancounters has them: uid, which is the container's
number, resource, held, maxheld, barrier, limit, failcnt.`},
	}},
}

const kernelFiles = `The controllers that were asked for with --enable have the kernel's own files under the kernel's
names, of cgroup version 1 or 2, whichever the host has them in: NAME.* of cpu, memory, blkio, io,
devices, freezer, net_cls, net_prio, pids, hugetlb, perf_event, rdma and misc; and of version 2's
own files cgroup.events, cgroup.freeze, cgroup.kill, cgroup.pressure and cgroup.stat, with --enable cgroup.
Values, units and errors are the kernel's: one read is one read of the kernel's file, one write one
write. The files of the root container are those of the server's own directory in the kernel. Who
writes to cgroup.kill needs what kill asks for.`

var ctlDocs = []ctlDoc{
	{"mount", "NAME [OPTIONS]", `Makes a hierarchy NAME. OPTIONS are words joined by commas or +: subsystems; all, which are all but
ns and the kernel's controllers, and what no OPTIONS mean; noprefix; release_agent=PATH; name=NAME. If there
is a hierarchy with these subsystems and this noprefix, it is that one, with its containers, also where it was
unmounted: success, or EBUSY where it has another name or agent. EBUSY when a subsystem is bound to another
hierarchy, or another has the name; ENOENT for a word that is no subsystem; EINVAL for an empty word, no
subsystem, noprefix where two files would have one name, and a NAME that is not 1 to 50 of A-Za-z0-9._-
beginning with a letter or digit, or is one of ctl, containers, events, proc, rules, self, noprefix.`},
	{"remount", "NAME [OPTIONS]", `Gives a hierarchy other subsystems, and an agent if there is release_agent=. ENOENT when it is not mounted;
EINVAL when noprefix or a name= differs; EBUSY when a subsystem is bound elsewhere, and when
the hierarchy has any container but its root.`},
	{"umount", "NAME", `Takes a hierarchy away. Its subsystems are free for others then. If it has containers it stays active,
though nobody sees it: its subsystems are busy, limits hold, the processes are where they are, and mount
with the same options gives it back with all that is in it. To be rid of it, mount it again and remove its
containers first. ENOENT when it is not mounted.`},
	{"attach", "procs|tasks ID", `Moves a process, or with tasks a thread, into containers of several hierarchies at once. A line with the path
of each container follows, at most 64: "attach procs 4711\n/cpu/batch\n/net/slow\n". It is in all of them
then or, after an error, where it was. For everybody who may write to these files. EINVAL for two containers of one
hierarchy and for what is no path of a container, ENOENT; else as for tasks.`},
}

// filesPage is containerfs-files(7).
func filesPage() page {
	p := newPage("containerfs-files", "7", "control files of containers, and commands of ctl")
	p.section("SYNOPSIS")
	p.line(".B /HIERARCHY[/CONTAINER].../FILE")
	p.line(".PP")
	p.line(".B /ctl")
	p.section("DESCRIPTION")
	p.text(filesIntro)
	for _, s := range fileSections {
		p.section(s.title)
		p.text(s.intro)
		for _, f := range s.files {
			names := strings.Fields(f.names)
			for i, n := range names {
				names[i] = `\fB` + roff(n) + `\fR`
			}
			p.item(strings.Join(names, ", ")+" ("+f.mode+")", f.text)
		}
	}
	p.section("THE KERNEL'S CONTROLLERS")
	p.text(kernelFiles)
	p.section("COMMANDS OF ctl")
	p.text(`They are written to /ctl, a command at a time, with single spaces between words. All but attach are for
privileged callers: EPERM. Anything else is EINVAL.`)
	for _, c := range ctlDocs {
		p.item(`\fB`+roff(c.word)+`\fR \fI`+roff(c.args)+`\fR`, c.text)
	}
	p.seeAlso("containerfs (1)", "containerfs-serve (8)")
	return p.page()
}

// item is a paragraph with a title, which is roff already.
func (p *manualPage) item(title, text string) {
	p.line(".TP")
	p.line(title)
	for line := range strings.Lines(text) {
		p.line(roff(strings.TrimSuffix(line, "\n")))
	}
}
