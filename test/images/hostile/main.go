// Command hostile does in a container what a hostile one would, as a program in an image
// of its own:
//
//	hostile wait              until it is told to end
//	hostile say TEXT          writes the termination message
//	hostile say-much          writes a termination message of 16 MiB
//	hostile say-by-link FILE  puts a link to FILE in the place of the termination message
//	hostile say-by-fifo       puts a FIFO there
//	hostile log-by-link FILE  puts links to FILE where logs are elsewhere, and says something
//	hostile talk              says something every tenth of a second
//	hostile links DIR         makes DIR/inside, a folder with a file, and DIR/outside, a link to /
//	hostile has FILE          ends well if there is such a file
//	hostile volume DIR        says of what kind DIR is, how large, its mode and its group
//	hostile fill FILE         writes FILE until there is no room, and says how large it is
//	hostile flood             writes for ever, whoever reads
//	hostile hang              never ends, whatever it is told but to be killed
//
// What it cannot do it says on standard error, and goes on: the tests look at what came
// of it outside.
package main

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"
)

// message is where the pods of the tests have their termination message: in a folder that
// the program may rename.
const message = "/tmp/message/text"

func main() {
	args := append(os.Args[1:], "", "")
	var err error
	switch args[0] {
	case "wait":
		ended := make(chan os.Signal, 1)
		signal.Notify(ended, syscall.SIGTERM)
		<-ended
	case "say":
		err = os.WriteFile(message, []byte(args[1]), 0o600)
	case "say-much":
		err = os.WriteFile(message, bytes.Repeat([]byte("much "), 16<<20/5), 0o600)
	case "say-by-link":
		replace(func() error { return os.Symlink(args[1], message) })
	case "say-by-fifo":
		replace(func() error { return syscall.Mkfifo(message, 0o600) })
	case "log-by-link":
		logByLink(args[1])
	case "talk":
		for err == nil {
			_, err = fmt.Println("talk")
			time.Sleep(100 * time.Millisecond)
		}
	case "links":
		err = links(args[1])
	case "has":
		_, err = os.Stat(args[1])
	case "volume":
		err = volume(args[1])
	case "fill":
		err = fill(args[1])
	case "flood":
		for line := bytes.Repeat([]byte("flood "), 1<<10); err == nil; {
			_, err = os.Stdout.Write(line)
		}
	case "hang":
		signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP)
		for {
			time.Sleep(time.Hour)
		}
	default:
		err = fmt.Errorf("%q is no way to be hostile", args[0])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "hostile:", err)
		os.Exit(1)
	}
}

// replace puts something in the place of the termination message: by removing what is
// there, or else in a new folder of that name.
func replace(put func() error) {
	folder := filepath.Dir(message)
	for _, try := range []func() error{
		func() error { return os.Remove(message) }, put,
		func() error { return os.Rename(folder, folder+".old") }, func() error { return os.Mkdir(folder, 0o777) }, put,
	} {
		if err := try(); err != nil {
			fmt.Fprintln(os.Stderr, "hostile:", err)
		}
	}
}

// logByLink says something after it has put links where a container's output goes, and
// where nodes keep the logs of pods.
func logByLink(to string) {
	for _, name := range []string{"/dev/stdout", "/proc/self/fd/1", "/var/log/pods", "/var/log/containers", "/var/log/app/0.log", "/var/log/0.log", "/tmp/0.log"} {
		_ = os.MkdirAll(filepath.Dir(name), 0o777) // it is there, or cannot be made
		_ = os.Remove(name)                        // is not there, or cannot be removed
		if err := os.Symlink(to, name); err != nil {
			fmt.Fprintln(os.Stderr, "hostile:", err)
		}
	}
	fmt.Println("own words")
}

func links(dir string) error {
	inside := filepath.Join(dir, "inside")
	if err := os.Mkdir(inside, 0o755); err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(inside, "own"), []byte("own"), 0o600); err != nil {
		return err
	}
	return os.Symlink("/", filepath.Join(dir, "outside"))
}

// volume says what statfs(2) and stat(2) say of a folder.
func volume(dir string) error {
	var fs syscall.Statfs_t
	var at syscall.Stat_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return err
	}
	if err := syscall.Stat(dir, &at); err != nil {
		return err
	}
	fmt.Printf("%#x %d %o %d\n", fs.Type, fs.Blocks*uint64(fs.Bsize), at.Mode&0o7777, at.Gid)
	return nil
}

// fill writes a file until a write fails for want of room.
func fill(name string) error {
	file, err := os.Create(name)
	if err != nil {
		return err
	}
	for chunk := bytes.Repeat([]byte("full "), 1<<12); err == nil; {
		_, err = file.Write(chunk)
	}
	if !errors.Is(err, syscall.ENOSPC) {
		return err
	}
	info, err := file.Stat()
	if err != nil {
		return err
	}
	fmt.Println(info.Size())
	return file.Close()
}
