// Package rules reads classification rules (SPEC §21) and says which of them
// decides where a task belongs. It knows no containers: a destination is a path, a
// hierarchy a name. Package ops does what the rules say.
//
// # The file
//
// The syntax is that of libcgroup's cgrules.conf(5): a rule is a line of fields with
// blanks between them, and whatever follows a # is a comment.
//
//	USER[:PROCESS]  HIERARCHY[,HIERARCHY]...  DESTINATION  [OPTION[,OPTION]...]
//
// USER is the name of a user, @ and the name of a group, or * for everybody. A name
// of digits that nobody has is a number. A user or a group that is not known fits
// nobody until it is known, and is no error; while the host's databases cannot be asked,
// what they said last holds. A lone % stands for the user and the process of the line
// before.
//
// The user is the task's effective one. A group fits by the task's effective gid,
// by its supplementary groups, and by the database's members.
//
// PROCESS is the name of the file that is executed, without its directory, or its
// absolute path; a * at the end stands for any rest. A name is also compared with
// the task's own (comm, of which the kernel keeps 15 bytes), since that is where
// the name of a script is, or of a link. A path is never compared with it: it is
// the file that is executed, which for a script is its interpreter.
//
// HIERARCHY is the name of a hierarchy, where libcgroup has controllers, or * for
// all that are mounted. One that is not mounted makes the line say nothing of it.
//
// DESTINATION is a path in the hierarchy, with or without slashes around it. In it
// %u and %U are the user's name and number, %g and %G the group's, %p the name of
// the executed file and %P the pid; who has no name is told by number. A backslash
// takes away the meaning of what follows it. What is put in is part of one name: a
// slash in it makes the rule fail. Other letters after % stand for themselves.
//
// OPTION is create: the destination is made where it is missing, with what is above
// it; or ignore: the line decides for tasks that are in the destination, or below
// it, and has them left there, and is passed over for all others. libcgroup's
// ignore_rt is refused.
//
// What containers have that are made so is said by templates, which are not in the file:
// see Template.
//
// There are no quotes in libcgroup, nor here: what has a blank or a # in it cannot be
// written but by a * in place of the rest of a process.
//
// # Which rule decides
//
// For each hierarchy, the first line that fits the task and names the hierarchy.
// libcgroup stops at the first line that fits, whatever it names: it is the other
// hierarchies for which this goes on.
package rules
