"""Makes the system calls of the table in docs/SEMANTICS.md on a mount, and prints what each came to, as JSON.

probe.py make DIR          fills DIR with what is to be published
probe.py ask MOUNT OUTSIDE  makes the calls; OUTSIDE is an empty directory on another file system

A row is the words of the table to "ok" or the name of an errno. "ok" is more than a call that did not fail where there
is something to compare: then it is what the document says in the words of the row.
"""

import ctypes
import errno
import fcntl
import json
import mmap
import os
import select
import socket
import stat
import subprocess
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
CONTENT = b"content\n"
# From fcntl.h, linux/fs.h and linux/fiemap.h.
F_SETLEASE, F_NOTIFY = 1024, 1026
TCGETS, FS_IOC_GETFLAGS, FICLONE, FS_IOC_FIEMAP = 0x5401, 0x80086601, 0x40049409, 0xC020660B
SPARSE, ISLAND = 8 << 20, 4 << 20
MTIME = 981_173_106_123_456_789


def make(top):
    os.makedirs(os.path.join(top, "dir"))
    path = lambda name: os.path.join(top, name)
    for name, content in [("file", CONTENT), ("secret", b"s"), ("run", b"#!/bin/sh\nexit 7\n"), ("setuid", b"s")]:
        with open(path(name), "wb") as file:
            file.write(content)
    with open(path("big"), "wb") as file:
        file.write(os.urandom(10 << 20))
    with open(path("sparse"), "wb") as file:
        file.truncate(SPARSE)
        file.seek(ISLAND)
        file.write(b"island")
    os.chmod(path("secret"), 0o600)
    os.chmod(path("run"), 0o755)
    os.chmod(path("setuid"), 0o6755)
    os.link(path("file"), path("hard"))
    os.symlink("file", path("link"))
    os.setxattr(path("file"), "user.colour", b"green")
    os.utime(path("file"), ns=(MTIME, MTIME))


def call(name, *args):
    result = getattr(LIBC, name)(*args)
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def must(truth):
    if not truth:
        raise AssertionError("it is not what the document says")


class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("kind", ctypes.c_int), ("handle", ctypes.c_ubyte * 128)]


def ask(mount, outside):
    path = lambda name: os.path.join(mount, name)
    raw = lambda name: path(name).encode()
    out = lambda name: os.path.join(outside, name)
    fd = os.open(path("file"), os.O_RDONLY)
    folder = os.open(path("dir"), os.O_RDONLY)
    other = os.open(out("copy"), os.O_RDWR | os.O_CREAT)
    buffer = mmap.mmap(-1, 8192)

    def each(*questions):
        """What all of them come to, which has to be the same."""
        found = {outcome(question) for question in questions}
        if len(found) > 1:
            raise AssertionError(f"they differ: {found}")
        if found != {"ok"}:
            raise OSError(getattr(errno, found.pop()), "")

    def opened(name, flags):
        os.close(os.open(path(name), flags))

    def permission(name, mode):
        call("access", raw(name), mode)

    def times():
        seen = os.stat(path("file"))
        os.pread(fd, 1, 0)
        must(os.stat(path("file")).st_atime_ns == seen.st_atime_ns == seen.st_mtime_ns == seen.st_ctime_ns == MTIME)

    def mapped(kind, protection):
        with mmap.mmap(fd, 0, kind, protection) as area:
            if kind == mmap.MAP_PRIVATE and protection & mmap.PROT_WRITE:
                area[0:1] = b"!"
                must(os.pread(fd, 1, 0) == CONTENT[:1])
            must(area[1:] == CONTENT[1:])

    def direct(offset, length, at):
        handle = os.open(path("big"), os.O_RDONLY | os.O_DIRECT)
        try:
            must(os.preadv(handle, [memoryview(buffer)[at : at + length]], offset) == length)
        finally:
            os.close(handle)

    def sought(whence, offset, found):
        handle = os.open(path("sparse"), os.O_RDONLY)
        try:
            must(os.lseek(handle, offset, whence) == found)
        finally:
            os.close(handle)

    def watched():
        watch = call("inotify_init1", os.O_NONBLOCK)
        call("inotify_add_watch", watch, raw("file"), 0x20)
        opened("file", os.O_RDONLY)
        must(len(os.read(watch, 4096)) > 0)

    def by_handle():
        handle, where = Handle(128), ctypes.c_int()
        call("name_to_handle_at", -100, raw("file"), ctypes.byref(handle), ctypes.byref(where), 0)
        os.close(call("open_by_handle_at", folder, ctypes.byref(handle), os.O_RDONLY))

    def as_nobody(words):
        done = subprocess.run(["setpriv", "--reuid=65534", "--clear-groups", *words], stderr=subprocess.PIPE)
        if done.returncode:
            must(b"ermission denied" in done.stderr)
            raise OSError(errno.EACCES, "")

    def free():
        space = os.statvfs(mount)
        must(space.f_bavail == space.f_ffree == 0 and space.f_namemax == 255)
        must(space.f_flag & os.ST_RDONLY and space.f_flag & os.ST_NOSUID and space.f_flag & os.ST_NODEV)

    def shared_number():
        one, two = os.stat(path("file")), os.stat(path("hard"))
        must(one.st_ino == two.st_ino and one.st_nlink == 2 and os.stat(path("dir")).st_dev == one.st_dev)

    return {
        "open for reading": lambda: opened("file", os.O_RDONLY),
        "open for writing, or to append or truncate": lambda: each(
            *(lambda flags=flags: opened("file", flags) for flags in (os.O_WRONLY, os.O_RDWR, os.O_TRUNC, os.O_WRONLY | os.O_APPEND))
        ),
        "open with O_CREAT of a name that is there, for reading": lambda: opened("file", os.O_CREAT),
        "open with O_CREAT of a new name": lambda: opened("new", os.O_CREAT | os.O_WRONLY),
        "open with O_CREAT and O_EXCL of a name that is there": lambda: opened("file", os.O_CREAT | os.O_EXCL | os.O_WRONLY),
        "open with O_TMPFILE": lambda: opened("", os.O_TMPFILE | os.O_RDWR),
        "open with O_NOFOLLOW of a symbolic link": lambda: opened("link", os.O_NOFOLLOW),
        "open with O_DIRECTORY of a file": lambda: opened("file", os.O_DIRECTORY),
        "open with O_PATH, O_SYNC, O_NONBLOCK, O_NOATIME": lambda: [
            opened("file", flag) for flag in (os.O_PATH, os.O_SYNC, os.O_NONBLOCK, os.O_NOATIME)
        ],
        "open, stat of a name that is not there": lambda: each(
            lambda: os.stat(path("absent")), lambda: opened("absent", os.O_RDONLY)
        ),
        "open, stat of a name longer than 255 bytes": lambda: each(
            lambda: os.stat(path("n" * 256)), lambda: opened("n" * 256, os.O_RDONLY)
        ),
        "open, stat below a file": lambda: each(
            lambda: os.stat(path("file/below")), lambda: opened("file/below", os.O_RDONLY)
        ),
        "mkdir, mknod, symlink, bind of a socket": lambda: each(
            lambda: os.mkdir(path("new")),
            lambda: os.mknod(path("new"), stat.S_IFIFO | 0o600),
            lambda: os.symlink("file", path("new")),
            lambda: socket.socket(socket.AF_UNIX).bind(path("new")),
        ),
        "mkdir of a name that is there": lambda: os.mkdir(path("dir")),
        "link, rename within the mount": lambda: each(
            lambda: os.link(path("file"), path("new")), lambda: os.rename(path("file"), path("new"))
        ),
        "link, rename to or from elsewhere": lambda: each(
            lambda: os.link(path("file"), out("new")),
            lambda: os.rename(path("file"), out("new")),
            lambda: os.rename(out("copy"), path("new")),
        ),
        "unlink, rmdir": lambda: each(
            lambda: os.unlink(path("file")), lambda: os.rmdir(path("dir"))
        ),
        "truncate, chmod, chown, utimensat": lambda: each(
            lambda: os.truncate(path("file"), 0),
            lambda: os.chmod(path("file"), 0o600),
            lambda: os.chown(path("file"), 1, 1),
            lambda: os.utime(path("file")),
        ),
        "setxattr, removexattr": lambda: each(
            lambda: os.setxattr(path("file"), "user.new", b"1"), lambda: os.removexattr(path("file"), "user.colour")
        ),
        "write, fallocate to what is open for reading": lambda: each(
            lambda: os.write(fd, b"x"), lambda: os.posix_fallocate(fd, 0, 1)
        ),
        "ftruncate of what is open for reading": lambda: os.ftruncate(fd, 0),
        "read, pread beyond the end: no bytes": lambda: must(os.pread(fd, 1, 1 << 40) == b""),
        "read of a directory": lambda: os.read(folder, 1),
        "lseek with SEEK_DATA, SEEK_HOLE": lambda: [
            sought(os.SEEK_DATA, 0, ISLAND), sought(os.SEEK_HOLE, 0, 0), sought(os.SEEK_HOLE, SPARSE - 1, SPARSE - 1)
        ],
        "lseek with SEEK_DATA beyond the last data": lambda: sought(os.SEEK_DATA, SPARSE, 0),
        "stat: times are the publisher's mtime; reading changes none": times,
        "stat: names that share an inode have one number and count": shared_number,
        "stat: set-user-ID and set-group-ID bits are not shown": lambda: must(
            stat.S_IMODE(os.stat(path("setuid")).st_mode) == 0o755
        ),
        "stat: a sparse file has the blocks of its size": lambda: must(
            os.stat(path("sparse")).st_blocks * 512 == SPARSE
        ),
        "statfs: nothing is free; ro, nosuid, nodev": free,
        "access with R_OK, X_OK, by mode and owner": lambda: [permission("file", os.R_OK), permission("run", os.X_OK)],
        "access with W_OK": lambda: permission("file", os.W_OK),
        "access with X_OK of a file that nobody may execute": lambda: permission("file", os.X_OK),
        "any call of another user, without allow_other": lambda: as_nobody(["ls", mount]),
        "execve": lambda: must(subprocess.run([path("run")]).returncode == 7),
        "getxattr, listxattr: those of the publisher, user.* only": lambda: [
            must(os.getxattr(path("file"), "user.colour") == b"green"),
            must(os.listxattr(path("file")) == ["user.colour"]),
        ],
        "getxattr of user.bcai.hash and its like, which are not listed": lambda: [
            os.getxattr(path("file"), f"user.bcai.{name}") for name in ("hash", "chunks", "snapshot", "version", "height")
        ],
        "getxattr of any other name; POSIX ACLs, capabilities, labels": lambda: each(
            *(
                lambda name=name: os.getxattr(path("file"), name)
                for name in ("user.other", "system.posix_acl_access", "security.capability", "security.selinux")
            )
        ),
        "readlink": lambda: must(os.readlink(path("link")) == "file"),
        "readlink of what is no link": lambda: os.readlink(path("file")),
        "flock, shared and exclusive, on this machine": lambda: [
            fcntl.flock(fd, fcntl.LOCK_SH), fcntl.flock(fd, fcntl.LOCK_EX), fcntl.flock(fd, fcntl.LOCK_UN)
        ],
        "fcntl read lock, on this machine": lambda: fcntl.lockf(fd, fcntl.LOCK_SH | fcntl.LOCK_NB),
        "fcntl write lock": lambda: fcntl.lockf(fd, fcntl.LOCK_EX | fcntl.LOCK_NB),
        "fcntl read lease, F_NOTIFY": lambda: [fcntl.fcntl(fd, F_SETLEASE, 0), fcntl.fcntl(folder, F_NOTIFY, 2)],
        "mmap for reading, shared or private": lambda: [
            mapped(kind, mmap.PROT_READ) for kind in (mmap.MAP_SHARED, mmap.MAP_PRIVATE)
        ],
        "mmap private and writable: changes stay in memory": lambda: mapped(
            mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_WRITE
        ),
        "mmap shared and writable": lambda: mapped(mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE),
        "read with O_DIRECT, aligned": lambda: direct(4096, 4096, 0),
        "read with O_DIRECT, not aligned": lambda: direct(3, 100, 1),
        "sendfile, splice": lambda: [
            must(os.sendfile(other, fd, 0, 8) == 8), must(os.splice(fd, os.pipe()[1], 8, offset_src=0) == 8)
        ],
        "copy_file_range to elsewhere; FICLONE": lambda: each(
            lambda: os.copy_file_range(fd, other, 8, 0, 0), lambda: fcntl.ioctl(other, FICLONE, fd)
        ),
        "posix_fadvise, readahead": lambda: [
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_WILLNEED),
            os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED),
            call("readahead", fd, ctypes.c_long(0), ctypes.c_size_t(4096)),
        ],
        "fsync, fdatasync, syncfs": lambda: [os.fsync(fd), os.fdatasync(fd), os.fsync(folder), call("syncfs", fd)],
        "ioctl TCGETS, FS_IOC_GETFLAGS": lambda: each(
            lambda: fcntl.ioctl(fd, FS_IOC_GETFLAGS, bytes(8)), lambda: fcntl.ioctl(fd, TCGETS, bytes(64))
        ),
        "ioctl FS_IOC_FIEMAP": lambda: fcntl.ioctl(fd, FS_IOC_FIEMAP, bytes(64)),
        "poll, select: always readable": lambda: must(select.select([fd], [], [], 0)[0] == [fd]),
        "inotify: what programs of this machine do": watched,
        "name_to_handle_at, open_by_handle_at": by_handle,
    }


def outcome(question):
    try:
        question()
        return "ok"
    except OSError as error:
        return "EOPNOTSUPP" if error.errno == errno.EOPNOTSUPP else errno.errorcode[error.errno]
    except ValueError as error:
        # How Python's mmap tells some refusals.
        return str(error)


if sys.argv[1] == "make":
    make(sys.argv[2])
else:
    print(json.dumps({row: outcome(question) for row, question in ask(sys.argv[2], sys.argv[3]).items()}))
