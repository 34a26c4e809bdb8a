// Command who says as whom it runs, and what it could change.
package main

import (
	"fmt"
	"os"
)

func main() {
	fmt.Printf("uid %d, gid %d, groups %s\n", os.Getuid(), os.Getgid(), groups())
	self, err := os.Executable()
	if err == nil {
		var f *os.File
		if f, err = os.OpenFile(self, os.O_WRONLY, 0); err == nil {
			f.Close()
			err = fmt.Errorf("%s can be written", self)
		}
	}
	fmt.Println(err)
}

func groups() string {
	ids, err := os.Getgroups()
	if err != nil {
		return err.Error()
	}
	return fmt.Sprint(ids)
}
