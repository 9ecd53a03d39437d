// Command cp copies one file, as Operator Lifecycle Manager calls cp in the
// jobs that unpack bundles: cp -Rv SOURCE TARGET. The images of this package
// hold nothing but static programs, and so need one.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if len(os.Args) != 4 || os.Args[1] != "-Rv" {
		fmt.Fprintln(os.Stderr, "usage: cp -Rv SOURCE TARGET")
		os.Exit(2)
	}
	if err := copyFile(os.Args[2], os.Args[3]); err != nil {
		fmt.Fprintln(os.Stderr, "cp:", err)
		os.Exit(1)
	}
}

// copyFile makes the target executable, since it is a program.
func copyFile(source, target string) (err error) {
	in, err := os.Open(source)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(target, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	if _, err := io.Copy(out, in); err != nil {
		_ = out.Close()
		return err
	}
	return out.Close()
}
