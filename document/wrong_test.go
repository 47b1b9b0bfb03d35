package document_test

import (
	"strings"
	"testing"

	"github.com/caissonrun/caisson/document"
)

// wrong lists documents that are refused. Want has the problems without the
// document's name. Schema says whether a JSON Schema can see that something is
// wrong: where it can, ours must.
var wrong = []struct {
	name   string
	doc    string
	want   string
	schema bool
}{
	{"Empty", "", `the document is empty; it needs at least a "run", "cmd" or "image"`, false},
	{"EmptyComment", "# nothing\n", `the document is empty; it needs at least a "run", "cmd" or "image"`, false},
	{"EmptyNull", "~", `the document is empty; it needs at least a "run", "cmd" or "image"`, true},
	{"NotAMapping", "[run]", "1:1: is a list; want a mapping of a task's fields", true},
	{"JustText", "run", `1:1: is the text "run"; want a mapping of a task's fields`, true},
	{"TwoDocuments", "run: x\n---\nrun: y\n", "2:1: a second document begins here; a file holds one task", false},
	{"SecondDocumentBroken", "run: x\n---\n[", "4:1: not valid YAML: while parsing a flow node: did not find expected node content", false},
	{"NoProgram", "name: x", `1:1: nothing to run; give a script as "run", a program as "cmd", or an "image", "module", "machine", "component" or "options"`, true},
	{"UnknownKey", "run: x\nmemroy: 5", `2:1: memroy: unknown key "memroy"`, true},
	{"UnknownKeyInside", "run: x\nlimits: {memroy: 5}", `2:10: limits.memroy: unknown key "memroy"; did you mean "memory"?`, true},
	{"UnknownKeySynonym", "run: x\nvolumes: []", `2:1: volumes: unknown key "volumes"; did you mean "mounts"?`, true},
	{"UnknownKeyFar", "run: x\nretry: {zzzzzz: 1}", `2:9: retry.zzzzzz: unknown key "zzzzzz"; known are "limit", "delay" and "factor"`, true},
	{"UnknownKeyOfMany", "run: x\nzzzzzz: 1", `2:1: zzzzzz: unknown key "zzzzzz"`, true},
	{"KeyTwice", "run: x\nname: a\nname: b", "3:1: name: the key stands there twice; the first is on line 2", false},
	{"KeyTwiceInside", "run: x\nenv:\n  A: 1\n  A: 2", "4:3: env.A: the key stands there twice; the first is on line 3", false},
	{"KeyTwiceJSON", "{\"run\": \"x\",\n \"run\": \"y\"}", "2:2: run: the key stands there twice; the first is on line 1", false},
	{"KeyNull", "run: x\n~: 1", "2:1: a key must be text", false},
	{"KeyList", "run: x\n[a]: 1", "2:1: a key must be text", false},
	{"NoValue", "run:", "1:5: run: has no value; want a script, or remove the key", true},
	{"NoValueInside", "run: x\nenv: {A: }", "2:10: env.A: has no value; want text, or remove the key", true},
	{"RunNumber", "run: 5", `1:6: run: is a number, not text; write it in quotes: "5"`, true},
	{"RunEmpty", "run: ''", "1:6: run: is empty; want a script", true},
	{"RunNUL", `run: "a\0b"`, "1:6: run: has a NUL character", true},
	{"RunAndCmd", "run: x\ncmd: [y]", `2:6: cmd: can't stand beside "run"; use one of them`, true},
	{"CmdText", "cmd: ls -l", `1:6: cmd: is the text "ls -l"; want a list of the program and its arguments`, true},
	{"CmdEmpty", "cmd: []", "1:6: cmd: is empty; want a list of the program and its arguments, or remove the key", true},
	{"CmdNull", "cmd: [a, ~]", "1:10: cmd[1]: has no value; want text, or remove the key", true},
	{"CmdNUL", `cmd: ["a\0"]`, "1:7: cmd[0]: has a NUL character", true},
	{"ModuleAndImage", "module: a.wasm\nimage: b", `2:8: image: can't stand beside "module"; use one of them`, true},
	{"ModuleAndRun", "module: a.wasm\nrun: x", `2:6: run: can't stand beside "module"; use one of them`, true},
	{"ModuleAndMachine", "module: a.wasm\nmachine: b", `2:10: machine: can't stand beside "module"; use one of them`, true},
	{"MachineAndImage", "machine: {image: a}\nimage: b", `1:10: machine: has an image of its own beside the task's "image"; leave out one of them`, true},
	{"MachineTextAndImage", "machine: a\nimage: b", `1:10: machine: has an image of its own beside the task's "image"; leave out one of them`, true},
	{"MachineList", "machine: [a]", "1:10: machine: is a list; want a disk image or a mapping with a machine's fields", true},
	{"MachineFirmware", "machine: {firmware: bois}", `1:21: machine.firmware: "bois" is not known; did you mean "bios"? known are "bios" and "uefi"`, true},
	{"MachineKernel", "machine: {kernel: ../vmlinuz}", `1:19: machine.kernel: "../vmlinuz" is not valid; want a kernel's name`, true},
	{"ComponentAndRun", "component: a\nrun: x", `2:6: run: does not go with "component", whose definition says what is run and how; leave out one of them`, true},
	{"ComponentAndMounts", "component: {config: a}\nmounts: []", `2:9: mounts: does not go with "component", whose definition says what is run and how; leave out one of them`, true},
	{"ComponentNoConfig", "component: {mode: run}", `1:12: component: the key "config" is missing; want a configuration's file or folder`, true},
	{"ComponentMode", "component: {config: a, mode: dry}", `1:30: component.mode: "dry" is not known; want "run", "debug", "input", "sandbox" or "dry-run"`, true},
	{"ComponentVariables", "component: {config: a, variables: {a: 1}, variable_values: b}", `1:60: component.variable_values: can't stand beside "variables"; use one of them`, true},
	{"ComponentKey", "component: {config: a, acton: b}", `1:24: component.acton: unknown key "acton"; did you mean "action"?`, true},
	{"VersionNew", "run: x\nversion: 2", "2:10: version: 2 is out of range; want 1, the version of the document that this program reads", true},
	{"NameLong", "run: x\nname: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", "2:7: name: is longer than 256 characters", true},
	{"NameNewline", "run: x\nname: \"a\\nb\"", `2:7: name: "a\nb" has a control character`, true},
	{"NameControl", "run: x\nname: \"a\\eb\"", `2:7: name: "a\x1bb" has a control character`, true},
	{"EngineUpper", "run: x\nengine: Native", `2:9: engine: "Native" is not valid; want an engine's name such as native or docker`, true},
	{"Image", "image: 'Busybox:stable'", `1:8: image: "Busybox:stable" is not valid; want an image's name such as busybox:stable or registry.example.com/team/tool@sha256:...`, true},
	{"ImageNoPath", "image: 'oci:'", `1:8: image: "oci:" is not valid; want an image's name such as busybox:stable or registry.example.com/team/tool@sha256:...`, true},
	{"ImageSpace", "image: 'busybox stable'", `1:8: image: "busybox stable" is not valid; want an image's name such as busybox:stable or registry.example.com/team/tool@sha256:...`, true},
	{"ImageDigest", "image: busybox@sha256:abc", `1:8: image: "busybox@sha256:abc" is not valid; want an image's name such as busybox:stable or registry.example.com/team/tool@sha256:...`, true},
	{"EnvList", "run: x\nenv: [A=1]", "2:6: env: is a list; want a mapping of names to values", true},
	{"EnvEquals", "run: x\nenv: {A=B: 1}", `2:7: env["A=B"]: key: "A=B" can't be a variable's name: it has '=' in it`, true},
	{"EnvEmptyName", "run: x\nenv: {'': 1}", `2:7: env[""]: key: the name of a variable is empty`, true},
	{"EnvOurs", "run: x\nenv: {CAISSON_X: 1}", `2:7: env.CAISSON_X: key: "CAISSON_X" is Caisson's own; use a name that does not begin with CAISSON_`, true},
	{"EnvNUL", "run: x\nenv: {A: \"x\\0\"}", "2:10: env.A: has a NUL character", true},
	{"EnvMapping", "run: x\nenv: {A: {B: 1}}", "2:10: env.A: is a mapping; want text", true},
	{"FilesOutside", "run: x\nfiles: {../x: ''}", `2:9: files["../x"]: key: "../x" leads out of the work folder`, true},
	{"FilesFolder", "run: x\nfiles: {a/: ''}", `2:13: files["a/"]: is a folder; give the name of a file`, false},
	{"FilesBoth", "run: x\nfiles: {a: '', a/b: '', /work/a: ''}", "2:21: files[\"a/b\"]: lies in \"/work/a\", which is a file\n2:34: files[\"/work/a\"]: is the same file as \"a\"", false},
	{"FilesNumber", "run: x\nfiles: {a: 5}", "2:12: files.a: is a number; want text, the file's contents", true},
	{"Workdir", "run: x\nworkdir: ../x", `2:10: workdir: "../x" leads out of the work folder`, true},
	{"WorkdirAbsolute", "run: x\nworkdir: /a/../b", `2:10: workdir: "/a/../b" has .. in it; write the path without`, true},
	{"UserNoChange", "run: x\nuser: 4294967295", `2:7: user: "4294967295" is not an id; ids are 0 to 4294967294`, true},
	{"UserNegative", "run: x\nuser: -1", `2:7: user: "-1" is not valid; want a user as "1000", "1000:1000", "name" or "name:group"`, true},
	{"UserGarbage", "run: x\nuser: '1000:'", `2:7: user: "1000:" is not valid; want a user as "1000", "1000:1000", "name" or "name:group"`, true},
	{"UserNoChangeText", "run: x\nuser: '0:4294967295'", `2:7: user: "4294967295" is not an id; ids are 0 to 4294967294`, false},
	{"UserThree", "run: x\nuser: '1:2:3'", `2:7: user: "2:3" is not an id; ids are 0 to 4294967294`, true},
	{"GroupSpace", "run: x\ngroup: 'a b'", `2:8: group: "a b" is not valid; want a group's name or id`, true},
	{"Hostname", "run: x\nhostname: -a", `2:11: hostname: "-a" is not valid; want a host name of letters, digits, hyphens and dots`, true},
	{"HostnameLong", "run: x\nhostname: a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a.a", "2:11: hostname: is longer than 64 characters", true},
	{"StopSignal", "run: x\nstop_signal: SIGTREM", `2:14: stop_signal: signal "SIGTREM": no such signal, use a name such as TERM or a number`, false},
	{"StopSignalNumber", "run: x\nstop_signal: 65", `2:14: stop_signal: signal "65": use 1 to 64`, true},
	{"StopSignalGarbage", "run: x\nstop_signal: 'TERM!'", `2:14: stop_signal: signal "TERM!": no such signal, use a name such as TERM or a number`, true},
	{"Privileged", "run: x\nprivileged: yes", `2:13: privileged: is the text "yes"; want true or false`, true},
	{"Device", "run: x\ndevices: [kvm]", `2:11: devices[0]: "kvm" is not absolute; want a path such as /data`, true},
	{"DevicePermissions", "run: x\ndevices: ['/dev/kvm:/dev/kvm:rx']", `2:11: devices[0]: "/dev/kvm:/dev/kvm:rx" is not valid; want a device as SOURCE[:TARGET[:PERMISSIONS]]`, true},
	{"DeviceMapping", "run: x\ndevices: [{target: /dev/kvm}]", `2:11: devices[0]: the key "source" is missing; want an absolute path such as /data`, true},
	{"DeviceParent", "run: x\ndevices: ['/dev/../etc/shadow']", `2:11: devices[0]: "/dev/../etc/shadow" has .. in it; write the path without`, false},
	{"GPUs", "run: x\ngpus: some", `2:7: gpus: "some" is not valid; want "all", a count, or key=value pairs such as "device=0,1"`, true},
	{"GPUsFraction", "run: x\ngpus: 1.5", `2:7: gpus: is a number; want "all", a count, or key=value pairs such as "device=0,1"`, true},
	{"RegistryNoSecret", "run: x\nregistry: {username: me, password: PW}", `2:36: registry.password: there is no such secret; name one of "secrets"`, false},
	{"RegistryHalf", "run: x\nregistry: {username: me}", `2:22: registry.username: needs "password" beside it`, true},
	{"RegistryPull", "run: x\nregistry: {pull: sometimes}", `2:18: registry.pull: "sometimes" is not known; want "missing", "always" or "never"`, true},
	{"InputNothing", "run: x\ninputs: [{to: a}]", `2:10: inputs[0]: the data is missing; give its URL as "from" or the contents as "text"`, true},
	{"InputBoth", "run: x\ninputs: [{from: 'file:a', text: b, to: a}]", `2:33: inputs[0].text: can't stand beside "from"; use one of them`, true},
	{"InputNoTo", "run: x\ninputs: [{from: 'file:a'}]", `2:10: inputs[0]: the key "to" is missing; want a path in the work folder such as in/data.csv, without .. and not beginning with /`, true},
	{"InputNoScheme", "run: x\ninputs: [{from: ./a, to: a}]", `2:17: inputs[0].from: "./a" has no scheme; for a file of this host write "file:./a"`, true},
	{"InputNoSchemeWindows", "run: x\ninputs: [{from: 'C:\\a', to: a}]", `2:17: inputs[0].from: "C:\\a" has no scheme; for a file of this host write "file:C:\a"`, true},
	{"InputNothingAfterScheme", "run: x\ninputs: [{from: 'file:', to: a}]", `2:17: inputs[0].from: "file:" names nothing after its scheme`, true},
	{"InputPassword", "run: x\ninputs: [{from: 'https://me:hunter2@example.com/', to: a}]", "2:17: inputs[0].from: the https URL has a password in it; make it a secret and write its name, $NAME", false},
	{"InputNoHost", "run: x\ninputs: [{from: 'https:///x', to: a}]", "2:17: inputs[0].from: the https URL has no valid host", false},
	{"InputAbsolute", "run: x\ninputs: [{text: x, to: /etc/passwd}]", `2:24: inputs[0].to: "/etc/passwd" is absolute; want a path in the work folder such as in/data.csv`, true},
	{"InputParent", "run: x\ninputs: [{text: x, to: a/../../b}]", `2:24: inputs[0].to: "a/../../b" leads out of the work folder`, true},
	{"InputLongName", "run: x\ninputs: [{text: x, to: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa}]", `2:24: inputs[0].to: the name "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa..." is longer than 255 bytes`, false},
	{"InputFolder", "run: x\ninputs: [{text: x, to: a/}]", `2:24: inputs[0].to: "a/" is a folder; text needs the name of a file`, false},
	{"InputDot", "run: x\ninputs: [{text: x, to: .}]", `2:24: inputs[0].to: "." is a folder; text needs the name of a file`, false},
	{"InputDigest", "run: x\ninputs: [{from: 'file:a', to: a, sha256: abc}]", `2:42: inputs[0].sha256: "abc" is not valid; want a SHA-256 digest: 64 hexadecimal digits`, true},
	{"InputModeNumber", "run: x\ninputs: [{text: x, to: a, mode: 0755}]", `2:33: inputs[0].mode: is a number, not text; write it in quotes: "0755"`, true},
	{"InputModeSetuid", "run: x\ninputs: [{text: x, to: a, mode: '4755'}]", `2:33: inputs[0].mode: "4755" is not valid; want permission bits as octal digits in quotes, such as "0755"`, true},
	{"InputSize", "run: x\ninputs: [{text: x, to: a, max_size: 1x}]", `2:37: inputs[0].max_size: size "1x": unknown unit "x", use k, m, g or t`, true},
	{"InputSame", "run: x\ninputs: [{text: x, to: a}, {text: y, to: ./a}]", `2:42: inputs[1].to: "./a" is where inputs[0] goes too`, false},
	{"InputBelowText", "run: x\ninputs: [{text: x, to: a}, {text: y, to: a/b/c}]", `2:42: inputs[1].to: "a/b/c" lies in "a", which inputs[0] makes a file`, false},
	{"InputAndFile", "run: x\nfiles: {a: ''}\ninputs: [{text: x, to: a}, {text: y, to: a/b}]", "3:24: inputs[0].to: \"a\" is where files.a goes too\n3:42: inputs[1].to: \"a/b\" lies in \"a\", which inputs[0] makes a file", false},
	{"InputGitOfFile", "run: x\ninputs: [{from: 'file:a', to: a, git: {ref: v1}}]", `2:39: inputs[0].git: needs a git URL beside it, such as from: "git+https://example.com/team/repo.git"`, false},
	{"InputGitRef", "run: x\ninputs: [{from: 'git+https://example.com/r', to: a, git: {ref: '--upload-pack=x'}}]", `2:64: inputs[0].git.ref: "--upload-pack=x" is not valid; want a branch, tag or commit`, true},
	{"InputGitRefDots", "run: x\ninputs: [{from: 'git+https://example.com/r', to: a, git: {ref: 'a..b'}}]", `2:64: inputs[0].git.ref: "a..b" is not a branch, tag or commit`, false},
	{"InputGitDepth", "run: x\ninputs: [{from: 'git+https://example.com/r', to: a, git: {depth: -2}}]", "2:66: inputs[0].git.depth: -2 is out of range; want a number of commits, or -1 for all", true},
	{"InputGitFolder", "run: x\ninputs: [{from: 'git+https://example.com/r', to: a, git: {folder: ../x}}]", `2:67: inputs[0].git.folder: "../x" leads out of the work folder`, true},
	{"OutputNoTo", "run: x\noutputs: [{path: a}]", `2:11: outputs[0]: the key "to" is missing; want a URL such as "file:./data.csv" or "https://example.com/data.csv"`, true},
	{"OutputAbsolute", "run: x\noutputs: [{path: /etc/passwd, to: 'file:a'}]", `2:18: outputs[0].path: "/etc/passwd" is absolute; want a path in the work folder such as in/data.csv`, true},
	{"OutputGlob", "run: x\noutputs: [{path: 'out/[a', to: 'file:a/'}]", `2:18: outputs[0].path: "out/[a" is not a valid pattern; see to its brackets`, false},
	{"OutputSeveral", "run: x\noutputs: [{path: 'out/*', to: 'file:a'}]", `2:31: outputs[0].to: must end in "/", because "out/*" may match several files`, false},
	{"OutputWhen", "run: x\noutputs: [{path: a, to: 'file:a', when: succes}]", `2:41: outputs[0].when: "succes" is not known; did you mean "success"? known are "success", "failure" and "always"`, true},
	{"OutputSame", "run: x\noutputs: [{path: a, to: 'file:a'}, {path: b, to: 'file:a', when: always}]", "2:50: outputs[1].to: is where outputs[0] goes too", false},
	{"MountType", "run: x\nmounts: [{type: Volume, target: /a}]", `2:17: mounts[0].type: "Volume" is not valid; want a mount's type: volume, cache, bind, tmpfs or a registered one`, true},
	{"MountNoTarget", "run: x\nmounts: [{type: volume}]", `2:10: mounts[0]: the key "target" is missing; want an absolute path such as /data`, true},
	{"MountRelative", "run: x\nmounts: [{type: volume, target: a}]", `2:33: mounts[0].target: "a" is not absolute; want a path such as /data`, true},
	{"MountRoot", "run: x\nmounts: [{type: volume, target: //}]", `2:33: mounts[0].target: "/" can't be mounted over; choose a folder of its own, such as /data`, false},
	{"MountWork", "run: x\nmounts: [{type: volume, target: /work/}]", `2:33: mounts[0].target: "/work" can't be mounted over; choose a folder of its own, such as /data`, false},
	{"MountProc", "run: x\nmounts: [{type: volume, target: /proc/sys}]", `2:33: mounts[0].target: "/proc/sys" lies in /proc, which every sandbox has of its own`, false},
	{"MountParent", "run: x\nmounts: [{type: volume, target: /a/../proc}]", `2:33: mounts[0].target: "/a/../proc" has .. in it; write the path without`, true},
	{"MountSame", "run: x\nmounts: [{type: volume, target: /a}, {type: tmpfs, target: /a/}]", `2:60: mounts[1].target: "/a/" is the target of mounts[0] too`, false},
	{"MountBindNothing", "run: x\nmounts: [{type: bind, target: /a}]", `2:10: mounts[0]: the key "source" is missing; type "bind" needs it`, true},
	{"MountCacheNothing", "run: x\nmounts: [{type: cache, target: /a}]", `2:10: mounts[0]: the key "source" is missing; type "cache" needs it`, true},
	{"MountCacheName", "run: x\nmounts: [{type: cache, source: ../x, target: /a}]", `2:32: mounts[0].source: "../x" is not the name of a cache; want up to 63 letters, digits, and . _ -`, true},
	{"MountVolumeName", "run: x\nmounts: [{type: volume, source: /var, target: /a}]", `2:33: mounts[0].source: "/var" is not the name of a volume; want up to 63 letters, digits, and . _ -`, true},
	{"MountTmpfsSource", "run: x\nmounts: [{type: tmpfs, source: a, target: /a}]", `2:32: mounts[0].source: does not go with type "tmpfs"`, true},
	{"MountTmpfsSize", "run: x\nmounts: [{type: tmpfs, target: /a, opts: {size: many}}]", `2:49: mounts[0].opts.size: size "many": unknown unit "many", use k, m, g or t`, false},
	{"MountTmpfsMode", "run: x\nmounts: [{type: tmpfs, target: /a, opts: {mode: 700}}]", `2:49: mounts[0].opts.mode: "700" is not valid; want permission bits as octal digits in quotes, such as "0700"`, true},
	{"MountTmpfsOption", "run: x\nmounts: [{type: tmpfs, target: /a, opts: {sixe: 1m}}]", `2:49: mounts[0].opts.sixe: unknown option of a tmpfs; known are "size" and "mode"`, true},
	{"NetworkAllowText", "run: x\nnetwork: allow", `2:10: network: "allow" needs hosts; write {allow: ["example.com:443"]}`, true},
	{"NetworkEmpty", "run: x\nnetwork: []", "2:10: network: is empty; want a list of networks, or remove the key", true},
	{"NetworkNumber", "run: x\nnetwork: 5", "2:10: network: is a number; want none, default, host, or a network's name or a mapping with allow or a list of networks", true},
	{"NetworkNoPort", "run: x\nnetwork: {allow: [example.com]}", `2:19: network.allow[0]: "example.com" has no port; want a host and port such as example.com:443`, true},
	{"NetworkBadPort", "run: x\nnetwork: {allow: ['example.com:70000']}", `2:19: network.allow[0]: "example.com:70000": the port is not 1 to 65535`, false},
	{"NetworkWildcard", "run: x\nnetwork: {allow: ['*:443', 'a.*.example.com:443', 'exa*ple.com:443']}", `2:19: network.allow[0]: "*:443" is not valid; want a host and port such as example.com:443, *.example.com:443, 192.0.2.1:5432 or [2001:db8::1]:443
2:28: network.allow[1]: "a.*.example.com:443" is not valid; want a host and port such as example.com:443, *.example.com:443, 192.0.2.1:5432 or [2001:db8::1]:443
2:51: network.allow[2]: "exa*ple.com:443" is not valid; want a host and port such as example.com:443, *.example.com:443, 192.0.2.1:5432 or [2001:db8::1]:443`, true},
	{"NetworkBadAddress", "run: x\nnetwork: {allow: ['[1::2::3]:80', '[10.0.0.1]:80', '[::ffff:10.0.0.1]:80']}", `2:19: network.allow[0]: "[1::2::3]" is not an IP address of version 6
2:35: network.allow[1]: "[10.0.0.1]" is not an IP address of version 6
2:52: network.allow[2]: "[::ffff:10.0.0.1]": write it as 10.0.0.1`, false},
	{"NetworkOtherSpelling", "run: x\nnetwork: {allow: ['10.1:80', '0x7f000001:80', '127.0.0.01:80', '*.1.2.3.4:80']}", `2:19: network.allow[0]: "10.1" is not a name, and as an address it would be four numbers of 0 to 255
2:30: network.allow[1]: "0x7f000001" is not a name, and as an address it would be four numbers of 0 to 255
2:47: network.allow[2]: "127.0.0.01" is not a name, and as an address it would be four numbers of 0 to 255
2:64: network.allow[3]: "*.1.2.3.4" is not a name, and as an address it would be four numbers of 0 to 255`, false},
	{"NetworkAllowSeveral", "run: x\nnetwork: {allow: [example.com, 'example.com:0']}", `2:19: network.allow[0]: "example.com" has no port; want a host and port such as example.com:443
2:32: network.allow[1]: "example.com:0": the port is not 1 to 65535`, true},
	{"NetworkAllowServers", "run: x\nnetwork: {allow: []}\ndns: {servers: [192.0.2.1]}", "3:16: dns.servers: can't stand beside network.allow, where names are resolved by Caisson alone", false},
	{"NetworkHostProxies", "run: x\nnetwork: host\nproxies: {abc: {upstream: x}}\nsecrets: {A: {from: 'env:A', broker: {host: a.example}}}", `3:10: proxies: needs a network of the sandbox's own; choose another than network: host
4:38: secrets.A.broker: needs a network of the sandbox's own; choose another than network: host`, false},
	{"NetworkNoName", "run: x\nnetwork: [{aliases: [a]}]", `2:11: network[0]: the key "name" is missing; want a network's name`, true},
	{"PortRange", "run: x\nports: [{port: 0}, {port: 65536}]", "2:16: ports[0].port: 0 is out of range; want a port, 1 to 65535\n2:27: ports[1].port: 65536 is out of range; want a port, 1 to 65535", true},
	{"PortText", "run: x\nports: [{port: '80'}]", "2:16: ports[0].port: is text, not a number; write it without quotes: 80", true},
	{"PortProtocol", "run: x\nports: [{port: 80, protocol: sctp}]", `2:30: ports[0].protocol: "sctp" is not known; want "tcp" or "udp"`, true},
	{"PortAddress", "run: x\nports: [{port: 80, host_ip: localhost}]", `2:29: ports[0].host_ip: "localhost" is not an IP address`, true},
	{"PortSame", "run: x\nports: [{port: 80, host_port: 8080}, {port: 81, host_port: 8080}]", "2:38: ports[1].host_port: 8080 is the host port of ports[0] too", false},
	{"DNSServer", "run: x\ndns: {servers: [dns.example.com]}", `2:17: dns.servers[0]: "dns.example.com" is not an IP address`, true},
	{"DNSServerNoAddress", "run: x\ndns: {servers: [1.2.3]}", `2:17: dns.servers[0]: "1.2.3" is not an IP address`, false},
	{"DNSOption", "run: x\ndns: {options: ['a b']}", `2:17: dns.options[0]: "a b" is not valid; want a resolver option such as ndots:2`, true},
	{"ProxyName", "run: x\nproxies: {ab: {upstream: x}}", `2:11: proxies.ab: key: "ab" is not valid; want 3 to 22 letters a to z`, true},
	{"ProxyNameUpper", "run: x\nproxies: {Abc: {upstream: x}}", `2:11: proxies.Abc: key: "Abc" is not valid; want 3 to 22 letters a to z`, true},
	{"ProxyLocalhost", "run: x\nproxies: {localhost: {upstream: x}}", `2:11: proxies.localhost: key: "localhost" is the sandbox itself; choose another name`, true},
	{"ProxyTaken", "run: x\nhostname: Box\nproxies: {box: {upstream: x}, main: {upstream: x}, web: {upstream: x}}\nsidecars: [{name: web, run: x}]", `3:16: proxies.box: is the name of the sandbox itself too; choose another
3:37: proxies.main: is the name of the main program too; choose another
3:57: proxies.web: is the name of a sidecar too; choose another`, false},
	{"ProxyNoUpstream", "run: x\nproxies: {abc: {}}", `2:16: proxies.abc: the key "upstream" is missing; want the name of one of the operator's upstreams`, true},
	{"DisplayHalf", "run: x\ndisplays: [{name: a, width: 5}]", `2:29: displays[0].width: needs "height" beside it`, true},
	{"DisplaySame", "run: x\ndisplays: [{name: a}, {name: a, port: 5900}]", `2:30: displays[1].name: "a" is the name of another display too`, false},
	{"DisplayScreens", "run: x\ndisplays: [{name: a}, {name: b}]", `2:23: displays[1]: displays[0] is the machine's screen already; give socket or port of a VNC server`, false},
	{"DisplayBoth", "run: x\ndisplays: [{name: a, socket: s, port: 1}]", `2:39: displays[0].port: can't stand beside "socket"; use one of them`, true},
	{"DisplayOutside", "run: x\ndisplays: [{name: a, socket: ../s}]", `2:30: displays[0].socket: "../s" leads out of the work folder`, true},
	{"DisplayElsewhere", "run: x\ndisplays: [{name: a, socket: /run/s}]", `2:30: displays[0].socket: "/run/s" is absolute; want a path in the work folder such as in/data.csv`, true},
	{"DisplayPort", "run: x\ndisplays: [{name: a, port: 65536}]", `2:28: displays[0].port: 65536 is out of range; want a port, 1 to 65535`, true},
	{"LimitNegative", "run: x\nlimits: {memory: -5}", `2:18: limits.memory: size "-5": negative`, true},
	{"LimitUnit", "run: x\nlimits: {memory: 64x}", `2:18: limits.memory: size "64x": unknown unit "x", use k, m, g or t`, true},
	{"LimitFraction", "run: x\nlimits: {memory: 1.5}", "2:18: limits.memory: is a number; want a size such as 64m or 1g, or a number of bytes", true},
	{"LimitTooLarge", "run: x\nlimits: {memory: 9999999999t}", `2:18: limits.memory: size "9999999999t": too large`, false},
	{"LimitCPUs", "run: x\nlimits: {cpus: two}", `2:16: limits.cpus: cpus "two": not a number of cores such as 0.5 or 2`, true},
	{"LimitCPUsNegative", "run: x\nlimits: {cpus: -0.5}", `2:16: limits.cpus: cpus "-0.5": out of range, use 0.001 to 1000000, or 0 for no limit`, true},
	{"LimitCPUsTiny", "run: x\nlimits: {cpus: '0.0001'}", `2:16: limits.cpus: cpus "0.0001": too small, the least is 0.001`, false},
	{"LimitPIDsFraction", "run: x\nlimits: {pids: 1.5}", `2:16: limits.pids: "1.5" is not valid; want a number of processes`, true},
	{"LimitPIDsText", "run: x\nlimits: {pids: '64'}", "2:16: limits.pids: is text, not a number; write it without quotes: 64", true},
	{"LimitPIDsOctal", "run: x\nlimits: {pids: 064}", `2:16: limits.pids: "064" is not valid; want a number of processes`, false},
	{"TimeoutFraction", "run: x\ntimeout: 1.5", "2:10: timeout: is a number; want a duration such as 250ms, 30s, 10m or 1h30m, or a number of seconds", true},
	{"TimeoutNegative", "run: x\ntimeout: -5", `2:10: timeout: duration "-5": use a number with a unit such as 250ms, 30s, 10m or 1h30m`, true},
	{"TimeoutNegativeText", "run: x\ntimeout: '-5s'", `2:10: timeout: duration "-5s": negative`, true},
	{"TimeoutUnit", "run: x\ntimeout: 5 minutes", `2:10: timeout: duration "5 minutes": use a number with a unit such as 250ms, 30s, 10m or 1h30m`, true},
	{"TimeoutDays", "run: x\ntimeout: 1d", `2:10: timeout: duration "1d": use a number with a unit such as 250ms, 30s, 10m or 1h30m`, true},
	{"TimeoutLong", "run: x\ntimeout: 9999999h", `2:10: timeout: duration "9999999h": use a number with a unit such as 250ms, 30s, 10m or 1h30m`, false},
	{"RetryFactor", "run: x\nretry: {factor: 0.5}", "2:17: retry.factor: 0.5 is out of range; want a factor of 1 or more", true},
	{"RetryNaN", "run: x\nretry: {factor: .nan}", `2:17: retry.factor: ".nan" is not valid; want a factor of 1 or more`, false},
	{"RetryLimit", "run: x\nretry: {limit: -1}", "2:16: retry.limit: -1 is out of range; want a number of attempts after the first, 0 to 1000", true},
	{"SuccessRange", "run: x\nsuccess: {codes: [-1, 256]}", "2:19: success.codes[0]: -1 is out of range; want an exit code, 0 to 255\n2:23: success.codes[1]: 256 is out of range; want an exit code, 0 to 255", true},
	{"SuccessEmpty", "run: x\nsuccess: {codes: []}", "2:18: success.codes: is empty; want a list, or remove the key", true},
	{"SuccessTwice", "run: x\nsuccess: {codes: [1, 1]}", `2:22: success.codes[1]: "1" stands in the list twice`, true},
	{"StepNothing", "run: x\npre: [{name: a}]", `2:7: pre[0]: nothing to run; give a script as "run" or a program as "cmd"`, true},
	{"StepBoth", "run: x\npre: [{run: a, cmd: [b]}]", `2:21: pre[0].cmd: can't stand beside "run"; use one of them`, true},
	{"StepMain", "run: x\npre: [{name: main, run: a}]", `2:14: pre[0].name: "main" is reserved for the main program and for steps without a name; choose another`, true},
	{"StepOurs", "run: x\npost: [{name: pre-0, run: a}]", `2:15: post[0].name: "pre-0" is reserved for the main program and for steps without a name; choose another`, true},
	{"StepSame", "run: x\npre: [{name: a, run: x}]\nfinally: [{name: a, run: x}]", `3:18: finally[0].name: "a" is the name of pre[0] too`, false},
	{"StepName", "run: x\npre: [{name: a/b, run: x}]", `2:14: pre[0].name: "a/b" is not valid; want a name of letters, digits, and . _ -`, true},
	{"StepProbe", "run: x\npre: [{run: a, probe: {port: 80}}]", `2:16: pre[0].probe: unknown key "probe"; known are "name", "image", "run", "cmd", "entrypoint", "env", "files", "workdir", "user" and "timeout"`, true},
	{"ProbeNothing", "run: x\nsidecars: [{run: a, probe: {interval: 1s}}]", `2:28: sidecars[0].probe: nothing to try; give "cmd", "port", or "http" and "port"`, true},
	{"ProbeBoth", "run: x\nsidecars: [{run: a, probe: {cmd: [a], port: 80}}]", `2:45: sidecars[0].probe.port: can't stand beside "cmd"; use one of them`, true},
	{"ProbeNoPort", "run: x\nsidecars: [{run: a, probe: {http: /}}]", `2:35: sidecars[0].probe.http: needs "port" beside it`, true},
	{"SecretValue", "run: x\nsecrets: {A: hunter2}", "2:14: secrets.A: is text; want a mapping with from and as", true},
	{"SecretFrom", "run: x\nsecrets: {A: {from: hunter2}}", `2:21: secrets.A.from: the value is not valid; want "env:NAME" or "file:PATH"`, true},
	{"SecretName", "run: x\nsecrets: {../A: {from: 'env:A'}}", `2:11: secrets["../A"]: key: "../A" is not valid; want a secret's name: letters, digits and _ . -, beginning with a letter or _`, true},
	{"SecretAs", "run: x\nsecrets: {A: {from: 'env:A', as: both}}", `2:34: secrets.A.as: "both" is not known; want "env" or "file"`, true},
	{"SecretOnce", "run: x\nsecrets: {A: {from: 'env:A', once: true}}", `2:36: secrets.A.once: needs as: "file"; a variable can be read again and again`, true},
	{"SecretBroker", "run: x\nsecrets: {A: {from: 'env:A', broker: {header: X}}}", `2:38: secrets.A.broker: the key "host" is missing; want a host such as api.example.com or api.example.com:8443; with http:// before it where it has no TLS`, true},
	{"SecretBrokerHost", "run: x\nsecrets: {A: {from: 'env:A', broker: {host: 'ftp://a.example'}}, B: {from: 'env:A', broker: {host: 'a.example:0'}}, C: {from: 'env:A', broker: {host: '*.example'}}}", `2:45: secrets.A.broker.host: "ftp://a.example": want a host alone, or with http:// before it where it has no TLS
2:100: secrets.B.broker.host: "a.example:0": the port is not 1 to 65535
2:151: secrets.C.broker.host: "*.example" is not valid; want a host such as api.example.com or api.example.com:8443; with http:// before it where it has no TLS`, true},
	{"SecretBrokerHeader", "run: x\nsecrets: {A: {from: 'env:A', broker: {host: a.example, header: hOst}}}", `2:64: secrets.A.broker.header: "hOst" belongs to the connection; name the header that the host reads the value from`, true},
	{"SecretBrokerOnce", "run: x\nsecrets: {A: {from: 'env:A', as: file, once: true, broker: {host: a.example}}}", `2:60: secrets.A.broker: can't stand beside "once"; use one of them`, true},
	{"SecretAndEnv", "run: x\nenv: {A: 1}\nsecrets: {A: {from: 'env:A'}}", `3:14: secrets.A: is a variable of "env" too; leave out one of them`, false},
	{"SecretAndEnvOfStep", "run: x\nsecrets: {A: {from: 'env:A'}}\npre: [{run: x}, {run: x, env: {A: 1}}]", `2:14: secrets.A: is a variable of "pre[1].env" too; leave out one of them`, false},
	{"SecretOurs", "run: x\nsecrets: {CAISSON_WORK: {from: 'env:A'}}", "2:25: secrets.CAISSON_WORK: names that begin with CAISSON_ are Caisson's own", false},
	{"OptionsList", "run: x\noptions: [a]", "2:10: options: is a list; want a mapping of the engine's own options", true},
	{"OptionsNumber", "run: x\noptions: {a: .inf}", `2:14: options.a: ".inf" is not a number that JSON has; write it in quotes if it is text`, false},
	{"OptionsKeyTwice", "run: x\noptions: {a: {b: 1, b: 2}}", "2:21: options.a.b: the key stands there twice; the first is on line 2", false},
	{"Tag", "run: x\nname: !secret x", `2:7: the tag "!secret" is not understood; leave it out`, false},
	{"TagBinary", "run: x\nname: !!binary aGk=", `2:7: the tag "!!binary" is not understood; leave it out`, false},
	{"TagMapping", "run: x\nenv: !env {A: 1}", `2:6: the tag "!env" is not understood; leave it out`, false},
	{"MergeText", "run: x\nenv: {<<: x, A: 1}", "2:11: what is merged with << must be a mapping, or a list of them", false},
	{"AnchorInItself", "run: x\noptions: &a {b: *a}", "2:17: the anchor &a contains itself", false},
	{"AnchorUnknown", "run: x\noptions: *a", "2:10: not valid YAML: unknown anchor 'a' referenced", false},
	{"YAMLSyntax", "run: x\n  name: y", "2:7: not valid YAML: mapping values are not allowed in this context", false},
	{"YAMLTab", "run: x\nenv:\n\x09A: 1", "3:1: not valid YAML: while scanning for the next token: found character that cannot start any token; indent with spaces, not tabs, and quote text that begins with @, ` or %", false},
	{"NotUTF8", "run: \"\xff\"", "1:7: the document is not UTF-8 text: byte 0xff", false},
	{"ControlCharacter", "run: x\nname: \"a\x01b\"", "2:9: the control character U+0001 can't stand in a document; in double quotes write it as an escape", false},
	{"JSONSyntax", "{\"run\": \"x\",\n \"env\": {\"A\" 1}}", "2:14: not valid JSON: invalid character '1' after object key", false},
	{"KeyOutside", "run: x\nmemory: 5", `2:1: memory: unknown key "memory"; did you mean "limits.memory"?`, true},
	{"RegistryPassword", "run: x\nregistry: {username: me, password: 'hunter2!'}", "2:36: registry.password: the value is not valid; want a secret's name: letters, digits and _ . -, beginning with a letter or _\n2:36: registry.password: there is no such secret; name one of \"secrets\"", true},
	{"JSONEnd", `{"run": "x"`, "1:12: not valid JSON: unexpected end of JSON input", false},
	{"AllAtOnce", "nmae: x\nlimits: {memory: 1x}\nenv: {A: }\ninputs: [{to: ../a}]\ntimeout: soon", "1:1: nmae: unknown key \"nmae\"; did you mean \"name\"?\n1:1: nothing to run; give a script as \"run\", a program as \"cmd\", or an \"image\", \"module\", \"machine\", \"component\" or \"options\"\n2:18: limits.memory: size \"1x\": unknown unit \"x\", use k, m, g or t\n3:10: env.A: has no value; want text, or remove the key\n4:10: inputs[0]: the data is missing; give its URL as \"from\" or the contents as \"text\"\n4:15: inputs[0].to: \"../a\" leads out of the work folder\n5:10: timeout: duration \"soon\": use a number with a unit such as 250ms, 30s, 10m or 1h30m", true},
}

func TestParseRefuses(t *testing.T) {
	for _, test := range wrong {
		t.Run(test.name, func(t *testing.T) {
			_, err := document.Parse("t", []byte(test.doc))
			if err == nil {
				t.Fatalf("Parse(%q) = nil, want %s", test.doc, test.want)
			}
			got := strings.ReplaceAll(err.Error(), "\nt:", "\n")
			got = strings.TrimPrefix(strings.TrimPrefix(got, "t:"), " ")
			if got != test.want {
				t.Errorf("Parse(%q) =\n%s\nwant\n%s", test.doc, got, test.want)
			}
			if strings.Contains(got, "hunter2") {
				t.Errorf("Parse(%q) repeats a secret: %s", test.doc, got)
			}
		})
	}
}

// TestParseBounds has documents that want more time or memory than they may.
func TestParseBounds(t *testing.T) {
	bomb := "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n"
	for i := 1; i < 10; i++ {
		n := string(rune('0' + i))
		p := string(rune('0' + i - 1))
		bomb += "a" + n + ": &a" + n + " [" + strings.Repeat("*a"+p+", ", 9) + "*a" + p + "]\n"
	}
	long := strings.Repeat("x", 1<<20)
	tests := map[string]struct{ name, doc, want string }{
		"Large":      {"t.yaml", "run: " + strings.Repeat("x", document.MaxSize), "the document is larger than 4 MiB"},
		"Deep":       {"t.yaml", "options: " + strings.Repeat("[", 10_000), "exceeded max depth"},
		"DeepClosed": {"t.yaml", "options: " + strings.Repeat("[", 100) + strings.Repeat("]", 100), "exceeded max depth"},
		"DeepBlocks": {"t.yaml", "options:\n" + strings.Repeat("- ", 5000) + "x", "exceeded max depth"},
		"DeepJSON":   {"t.json", `{"options": {"a":` + strings.Repeat("[", 5000) + strings.Repeat("]", 5000) + "}}", "more than 64 deep"},
		"DeepMerge":  {"t.yaml", "run: x\noptions:\n" + bomb, "the document has more than"},
		"Aliases":    {"t.yaml", bomb, "the document has more than"},
		"AliasedText": {
			"t.yaml", "run: x\noptions:\n  a: &a " + long + "\n  b: [" + strings.Repeat("*a, ", 1000) + "]", "the document has more than",
		},
		"ManyValues": {"t.yaml", "options: {a: [" + strings.Repeat("x,", 200_000) + "]}", "the document has more than"},
		"ManyJSON":   {"t.json", `{"options": {"a": [` + strings.Repeat("1,", 200_000) + "1]}}", "the document has more than"},
		"ManyProblems": {
			"t.yaml", "run: x\nenv: {" + func() (s string) {
				for i := range 1000 {
					s += "A" + strings.Repeat("x", i) + ": ,"
				}
				return s
			}() + "}", "and 900 more problems",
		},
		"ManyMerges": {"t.yaml", "run: x\nenv:\n" + strings.Repeat("  <<: {A: 1}\n", 20_000), ""},
		"LongKey":    {"t.yaml", "? " + long + "\n: x\nrun: x", "unknown key"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := document.Parse(test.name, []byte(test.doc))
			if test.want == "" {
				if err != nil {
					t.Error(err)
				}
			} else if err == nil || !strings.Contains(err.Error(), test.want) {
				t.Errorf("Parse = %.300v, want it to say %q", err, test.want)
			}
			if err != nil && len(err.Error()) > 100_000 {
				t.Errorf("the message has %d bytes", len(err.Error()))
			}
		})
	}
}
