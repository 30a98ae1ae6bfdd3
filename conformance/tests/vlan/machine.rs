//! A virtual machine with Debian's kernel, for what the one that runs has not. Nothing in it but the test binary, the
//! plugins and a few tools, in an initramfs; no root and no hardware support.

use std::collections::BTreeSet;
use std::env;
use std::fmt::Write as _;
use std::fs::{self, File};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};

const PACKAGE: &str = "linux-image-cloud-amd64";
const RETRIES: &str = "Acquire::Retries=3";
/// In the order they need one another.
const MODULES: [&str; 7] = ["llc", "stp", "garp", "mrp", "bridge", "8021q", "veth"];
/// Likewise, for masquerading and the MAC filter.
const NETFILTER: [&str; 11] = [
    "libcrc32c",
    "nfnetlink",
    "nf_tables",
    "nf_defrag_ipv4",
    "nf_defrag_ipv6",
    "nf_conntrack",
    "nf_nat",
    "nft_chain_nat",
    "nft_masq",
    "nf_conntrack_netlink",
    "nft_meta_bridge",
];
const TOOLS: [&str; 5] = [
    "/bin/busybox",
    "/bin/dash",
    "/sbin/ip",
    "/sbin/bridge",
    "/bin/ping",
];
/// The first process.
const INIT: &str = "#!/bin/busybox sh
/bin/busybox mkdir -p /applets /proc /sys /dev /run /tmp /var/lib/cni
/bin/busybox --install -s /applets
export PATH=/sbin:/bin:/applets
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
ln -s dash /bin/sh
export TESTKIT_BIN_DIR=/plugins RUST_BACKTRACE=0
for module in @MODULES@; do insmod /modules/$module.ko; done
/test --ignored --test-threads=1 --skip in_a_kernel @TESTS@ && echo machine: passed
reboot -f
";
const LIMIT_S: &str = "300";

/// Runs ignored tests of this test binary in the machine, chosen by the test harness's own arguments; returns what its
/// console showed, `machine: passed` if they did.
pub fn run_ignored(netfilter: bool, tests: &str) -> Result<String> {
    let kernel = Kernel::get(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let mut archive = Archive::default();
    let modules: Vec<&str> = modules()
        .take(if netfilter { usize::MAX } else { MODULES.len() })
        .collect();
    let init = INIT.replace("@MODULES@", &modules.join(" "));
    let init = init.replace("@TESTS@", tests);
    archive.script("init", &init);
    for module in modules {
        archive.file(&kernel.module(module), &format!("modules/{module}.ko"))?;
    }
    let mut libraries = BTreeSet::new();
    for tool in TOOLS {
        archive.file(Path::new(tool), tool)?;
        libraries.extend(libraries_of(Path::new(tool))?);
    }
    let me = env::current_exe()?;
    libraries.extend(libraries_of(&me)?);
    archive.file(&me, "test")?;
    for plugin in ["bridge", "host-local", "loopback"] {
        let path = testkit::bin_dir().join(plugin);
        libraries.extend(libraries_of(&path)?);
        archive.file(&path, &format!("plugins/{plugin}"))?;
    }
    for library in libraries {
        archive.file(Path::new(&library), &library)?;
    }
    let initramfs = kernel
        .dir
        .join(format!("initramfs-{}-{netfilter}", std::process::id()));
    fs::write(&initramfs, archive.end())?;
    let console = boot(&kernel.image(), &initramfs);
    fs::remove_file(&initramfs)?;
    console
}

fn boot(image: &Path, initramfs: &Path) -> Result<String> {
    let mut qemu = Command::new("setpriv");
    qemu.args([
        "--pdeathsig",
        "TERM",
        "timeout",
        "--kill-after=5",
        LIMIT_S,
        "qemu-system-x86_64",
    ])
    // Not "microvm": it has no clock to measure the TSC by, and a busy host then stops the boot.
    .args([
        "-machine",
        "q35",
        "-cpu",
        "max",
        "-m",
        "512",
        "-nodefaults",
        "-no-user-config",
    ])
    // Its time is told by the instructions it ran: what takes a moment takes one on a busy host, too.
    .args(["-accel", "tcg", "-icount", "shift=1,sleep=off"])
    .args([
        "-display",
        "none",
        "-serial",
        "stdio",
        "-no-reboot",
        "-kernel",
    ])
    .arg(image)
    .arg("-initrd")
    .arg(initramfs)
    .args([
        "-append",
        "console=ttyS0 quiet mitigations=off panic=-1 reboot=t",
    ])
    .stdin(Stdio::null());
    let output = qemu
        .output()
        .context("qemu-system-x86_64 (`make deps` installs it)")?;
    let console = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "qemu: {}, {said}\n{console}",
        output.status
    );
    Ok(console)
}

/// The kernel of Debian's package, taken out of it and kept: nothing is installed.
struct Kernel {
    dir: PathBuf,
}

impl Kernel {
    fn get(target: &Path) -> Result<Kernel> {
        let kernel = Kernel {
            dir: target.join("vlan-kernel"),
        };
        fs::create_dir_all(&kernel.dir)?;
        let lock = File::create(kernel.dir.join("lock"))?;
        lock.lock()?;
        if !kernel.is_whole() {
            kernel.fetch()?;
        }
        Ok(kernel)
    }

    fn image(&self) -> PathBuf {
        self.dir.join("vmlinuz")
    }

    fn module(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.ko"))
    }

    fn is_whole(&self) -> bool {
        self.image().exists() && modules().all(|name| self.module(name).exists())
    }

    fn fetch(&self) -> Result<()> {
        let unpacked = self.dir.join("unpacked");
        let _ = fs::remove_dir_all(&unpacked);
        fs::create_dir(&unpacked)?;
        if self.download(&unpacked).is_err() {
            // The lists are old, or there are none.
            run(Command::new("apt-get").args(["-qq", "-o", RETRIES, "update"]))?;
            self.download(&unpacked)?;
        }
        run(Command::new("sh")
            .arg("-euc")
            .arg("dpkg-deb -x ./*.deb .")
            .current_dir(&unpacked))?;
        for name in modules() {
            let found = run(Command::new("find")
                .args(["lib", "-name"])
                .arg(format!("{name}.ko"))
                .current_dir(&unpacked))?;
            let found = found
                .lines()
                .next()
                .with_context(|| format!("{name}.ko is not in {PACKAGE}"))?;
            fs::rename(unpacked.join(found), self.module(name))?;
        }
        let images = fs::read_dir(unpacked.join("boot"))?.filter_map(Result::ok);
        let image = images
            .map(|entry| entry.path())
            .find(|path| path.to_string_lossy().contains("/vmlinuz-"));
        fs::rename(image.context("no kernel in it")?, self.image())?;
        Ok(fs::remove_dir_all(&unpacked)?)
    }

    /// The package that the named one stands for.
    fn download(&self, to: &Path) -> Result<()> {
        let depends = run(Command::new("apt-cache").args(["depends", "--important", PACKAGE]))?;
        let package = depends
            .lines()
            .find_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
        let package = format!(
            "linux-image-{}",
            package.context("apt-cache does not know it")?
        );
        // Not as the user _apt, who may not write here.
        run(Command::new("apt-get")
            .args([
                "-qq",
                "-o",
                "APT::Sandbox::User=root",
                "-o",
                RETRIES,
                "download",
                &package,
            ])
            .current_dir(to))?;
        Ok(())
    }
}

fn modules() -> impl Iterator<Item = &'static str> {
    MODULES.into_iter().chain(NETFILTER)
}

/// What the dynamic linker would load, itself included. A static program has none.
fn libraries_of(program: &Path) -> Result<Vec<String>> {
    let output = Command::new("ldd").arg(program).output()?;
    let text = String::from_utf8(output.stdout)?;
    let path = |line: &str| {
        line.split_whitespace()
            .find(|word| word.starts_with('/'))
            .map(str::to_owned)
    };
    Ok(text.lines().filter_map(path).collect())
}

fn run(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    if !output.status.success() {
        bail!(
            "{command:?}: {}: {}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// An initramfs: a cpio archive of the "newc" kind (kernel: Documentation/driver-api/early-userspace/buffer-format.rst).
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    dirs: BTreeSet<PathBuf>,
}

const DIRECTORY: u32 = 0o040_755;
const EXECUTABLE: u32 = 0o100_755;

impl Archive {
    /// A copy of a file, under that name, with the directories it needs.
    fn file(&mut self, from: &Path, name: &str) -> Result<()> {
        let content = fs::read(from).with_context(|| from.display().to_string())?;
        let mode = fs::metadata(from)?.permissions().mode();
        let name = name.trim_start_matches('/');
        let mut parents: Vec<&Path> = Path::new(name).ancestors().skip(1).collect();
        parents.pop();
        for dir in parents.into_iter().rev() {
            if self.dirs.insert(dir.to_owned()) {
                self.entry(&dir.to_string_lossy(), DIRECTORY, &[]);
            }
        }
        self.entry(name, mode, &content);
        Ok(())
    }

    fn script(&mut self, name: &str, text: &str) {
        self.entry(name, EXECUTABLE, text.as_bytes());
    }

    fn entry(&mut self, name: &str, mode: u32, content: &[u8]) {
        let mut head = String::from("070701");
        // Inode, mode, owner, group, links, time, size, four device numbers, length of the name with its NUL, checksum.
        let (size, name_len) = (content.len(), name.len() + 1);
        let fields = [0, mode as usize, 0, 0, 1, 0, size, 0, 0, 0, 0, name_len, 0];
        for field in fields {
            write!(head, "{field:08x}").expect("to a string");
        }
        self.bytes.extend_from_slice(head.as_bytes());
        self.bytes.extend_from_slice(name.as_bytes());
        self.bytes.push(0);
        self.pad();
        self.bytes.extend_from_slice(content);
        self.pad();
    }

    fn pad(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn end(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}
