// Runs runc on machines that lack CAP_SYS_RESOURCE, as some virtual machines do.
//
// Before runc creates a container, its bundle loses the settings that need that capability: the
// capability itself, OOM scores below zero, and limits of open files above our own. On machines
// with version 1 of control groups, the bundle also mounts them recursively, as the kubelet needs.
package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"toolchain/talos-helpers/capability"
)

const (
	// In a Talos node, this program has the name of runc.
	runcOfNode    = "/usr/libexec/runc"
	sysResource   = "CAP_SYS_RESOURCE"
	controlGroups = "/sys/fs/cgroup"
)

type object = map[string]any

func main() {
	if bundle, creates := bundleOf(os.Args[1:]); creates {
		if err := adapt(filepath.Join(bundle, "config.json")); err != nil {
			fail("adapt the bundle", err)
		}
	}
	runc, err := findRunc()
	if err != nil {
		fail("find runc", err)
	}
	fail("start runc", syscall.Exec(runc, append([]string{"runc"}, os.Args[1:]...), os.Environ()))
}

func fail(what string, err error) {
	fmt.Fprintf(os.Stderr, "runc-without-sys-resource: %s: %v\n", what, err)
	os.Exit(1)
}

func findRunc() (string, error) {
	if _, err := os.Stat(runcOfNode); err == nil {
		return runcOfNode, nil
	}
	return exec.LookPath("runc")
}

// bundleOf returns the bundle of a command line of runc, and whether it creates a container.
func bundleOf(arguments []string) (string, bool) {
	start := slices.IndexFunc(arguments, func(word string) bool {
		return word == "create" || word == "run" || word == "restore"
	})
	if start < 0 {
		return "", false
	}
	for number, word := range arguments[start:] {
		if path, found := strings.CutPrefix(word, "--bundle="); found {
			return path, true
		}
		if word == "--bundle" || word == "-b" {
			return arguments[start+number+1], true
		}
	}
	return ".", true
}

func adapt(file string) error {
	content, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	decoder := json.NewDecoder(bytes.NewReader(content))
	decoder.UseNumber()
	config := object{}
	if err := decoder.Decode(&config); err != nil {
		return err
	}
	if !capability.IsAvailable(capability.SysResource) {
		if process, found := config["process"].(object); found {
			adaptProcess(process)
		}
	}
	mountControlGroupsRecursively(config)
	content, err = json.Marshal(config)
	if err != nil {
		return err
	}
	return os.WriteFile(file, content, 0o644)
}

func adaptProcess(process object) {
	if sets, found := process["capabilities"].(object); found {
		for name, set := range sets {
			sets[name] = without(set, func(one any) bool { return one == sysResource })
		}
	}
	if score, found := process["oomScoreAdj"].(json.Number); found && score.String()[0] == '-' {
		delete(process, "oomScoreAdj")
	}
	if limits, found := process["rlimits"]; found {
		process["rlimits"] = without(limits, isAboveOurs)
	}
}

func isAboveOurs(limit any) bool {
	wanted, _ := limit.(object)
	hard, _ := wanted["hard"].(json.Number)
	number, err := strconv.ParseUint(hard.String(), 10, 64)
	var own syscall.Rlimit
	if wanted["type"] != "RLIMIT_NOFILE" || err != nil ||
		syscall.Getrlimit(syscall.RLIMIT_NOFILE, &own) != nil {
		return false
	}
	return number > own.Max
}

// The kubelet mounts the control groups without those below, which hides those of version 1.
func mountControlGroupsRecursively(config object) {
	if _, err := os.Stat(filepath.Join(controlGroups, "memory")); err != nil {
		return
	}
	mounts, _ := config["mounts"].([]any)
	for _, one := range mounts {
		mount, _ := one.(object)
		options, _ := mount["options"].([]any)
		if at := slices.Index(options, any("bind")); mount["destination"] == controlGroups && at >= 0 {
			options[at] = "rbind"
		}
	}
}

func without(list any, isUnwanted func(any) bool) []any {
	items, _ := list.([]any)
	return slices.DeleteFunc(items, isUnwanted)
}
