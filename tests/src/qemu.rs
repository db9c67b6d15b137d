//! Boards under QEMU, driven over their serial line by way of `scripts/run`.
//!
//! [`Board`] is what a test runs on, [`Run`] a board that is up. A run that is dropped is killed, QEMU with it.

use std::fs;
use std::io::{Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

/// A board that the scripts can boot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Board {
    /// `virt` with GICv3 and `-cpu max`.
    Virt,
    /// `virt` with GICv2 and `-cpu cortex-a72`.
    VirtA72,
    /// `raspi4b`.
    Raspi4b,
}

impl Board {
    /// The two `virt` boards.
    pub const VIRT: [Self; 2] = [Self::Virt, Self::VirtA72];

    fn options(self) -> &'static [&'static str] {
        match self {
            Self::Virt => &[],
            Self::VirtA72 => &["--gic", "2", "--cpu", "cortex-a72"],
            Self::Raspi4b => &["--board", "raspi4b"],
        }
    }
}

/// The root of the project.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace")
}

/// A board that is up.
pub struct Run {
    child: Child,
    input: Option<ChildStdin>,
    output: Arc<Mutex<String>>,
    /// How much of the output is not looked at any more when something is waited for, in bytes.
    seen: usize,
}

/// How a run ended.
#[derive(Debug)]
pub struct Ended {
    /// The exit status of `scripts/run`.
    pub status: i32,
    /// All that was printed, CR removed.
    pub output: String,
}

impl Ended {
    /// Fails unless `line` was printed as a whole line.
    #[track_caller]
    pub fn has_line(&self, line: &str) -> &Self {
        assert!(self.output.lines().any(|printed| printed == line), "no line {line:?} in:\n{}", self.output);
        self
    }

    /// The last line that starts so, printed for who reads the test's output; fails if there is none.
    #[track_caller]
    pub fn last_line(&self, start: &str) -> &str {
        let line = self.output.lines().rev().find(|line| line.starts_with(start));
        let line = line.unwrap_or_else(|| panic!("no line that starts with {start:?} in:\n{}", self.output));
        println!("{line}");
        line
    }

    /// Fails unless some line has `text`.
    #[track_caller]
    pub fn has(&self, text: &str) -> &Self {
        assert!(self.output.contains(text), "no {text:?} in:\n{}", self.output);
        self
    }

    /// Fails if some line has `text`.
    #[track_caller]
    pub fn lacks(&self, text: &str) -> &Self {
        assert!(!self.output.contains(text), "{text:?} in:\n{}", self.output);
        self
    }

    /// Fails unless the exit status is `status`.
    #[track_caller]
    pub fn exits_with(&self, status: i32) -> &Self {
        assert_eq!(self.status, status, "the exit status after:\n{}", self.output);
        self
    }
}

/// What a terminal shows of `raw`, line by line: CR and ESC [ K erase what stood on the line.
fn render(raw: &str) -> String {
    let lines = raw.split('\n').map(|line| line.rsplit("\r\x1b[K").next().unwrap_or(line).replace('\r', ""));
    lines.collect::<Vec<_>>().join("\n")
}

impl Run {
    /// Boots `what` (an example's name or a file) on `board`, with more options, for at most `seconds`. Those behind `--` are
    /// QEMU's.
    pub fn start(board: Board, what: &str, options: &[&str], seconds: u32) -> Self {
        let mut command = Command::new(root().join("scripts/run"));
        let (options, qemus) = options.split_at(options.iter().position(|one| *one == "--").unwrap_or(options.len()));
        command.args(board.options()).args(["--timeout", &seconds.to_string()]).args(options).arg(what).args(qemus);
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut child = command.spawn().expect("scripts/run starts");
        let output = Arc::new(Mutex::new(String::new()));
        let streams: [Box<dyn Read + Send>; 2] =
            [Box::new(child.stdout.take().expect("a pipe")), Box::new(child.stderr.take().expect("a pipe"))];
        for mut stream in streams {
            let output = Arc::clone(&output);
            thread::spawn(move || {
                let mut buffer = [0; 4096];
                while let Ok(n @ 1..) = stream.read(&mut buffer) {
                    let text = String::from_utf8_lossy(&buffer[..n]);
                    output.lock().expect("no panic while it is held").push_str(&text);
                }
            });
        }
        Self { input: child.stdin.take(), child, output, seen: 0 }
    }

    /// What was printed so far.
    pub fn output(&self) -> String {
        render(&self.output.lock().expect("no panic while it is held"))
    }

    /// From here on, only what is printed later is waited for.
    pub fn look_away(&mut self) -> &mut Self {
        self.seen = self.output.lock().expect("no panic while it is held").len();
        self
    }

    /// Waits until `text` was printed; fails after `seconds`, or when the run ends without it.
    #[track_caller]
    pub fn wait_for(&mut self, text: &str, seconds: u64) -> &mut Self {
        let deadline = Instant::now() + Duration::from_secs(seconds);
        loop {
            let ended = self.child.try_wait().ok().flatten().is_some();
            let new = render(&self.output.lock().expect("no panic while it is held")[self.seen..]);
            if new.contains(text) {
                return self;
            }
            let output = self.output();
            assert!(!ended && Instant::now() < deadline, "no {text:?} within {seconds} s in:\n{output}");
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// Types on the board's serial line.
    pub fn send(&mut self, text: &str) -> &mut Self {
        if let Some(input) = &mut self.input {
            // A board that is gone shows in what is waited for next.
            let _ = input.write_all(text.as_bytes()).and_then(|()| input.flush());
        }
        self
    }

    /// Types a line for a guest, no faster than its UART's FIFO is read.
    pub fn send_slowly(&mut self, text: &str) -> &mut Self {
        for part in text.as_bytes().chunks(8) {
            self.send(&String::from_utf8_lossy(part));
            thread::sleep(Duration::from_millis(30));
        }
        self
    }

    /// Waits for the end.
    pub fn end(mut self) -> Ended {
        let status = self.child.wait().expect("it was started").code().unwrap_or(-1);
        // The readers see the end of the pipes a moment later.
        thread::sleep(Duration::from_millis(100));
        Ended { status, output: self.output() }
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        let group = format!("-{}", self.child.id());
        let _ = Command::new("kill").args(["-9", "--", &group]).stderr(Stdio::null()).status();
        let _ = self.child.wait();
    }
}

/// A VM of a manifest made for a test.
#[derive(Clone, Debug)]
pub struct Vm {
    /// Its name.
    pub name: &'static str,
    /// How many vCPUs.
    pub vcpus: u32,
    /// Its RAM, as in a manifest.
    pub memory: &'static str,
    /// The lines of its node that say what it runs.
    pub rest: String,
}

impl Vm {
    /// A bare guest, with bootargs.
    pub fn bare(name: &'static str, vcpus: u32, bootargs: &str) -> Self {
        Self { name, vcpus, memory: "64M", rest: format!("kernel = \"{name}.bin\"; bootargs = \"{bootargs}\";") }
    }

    /// Debian's Linux with this on its command line.
    pub fn linux(name: &'static str, vcpus: u32, bootargs: &str) -> Self {
        let rest = format!(
            "kernel = \"linux/Image\"; initrd = \"linux/initrd.gz\"; bootargs = \"console=ttyAMA0 quiet panic=-1 {bootargs}\";"
        );
        Self { name, vcpus, memory: "128M", rest }
    }
}

/// Writes a manifest of `vms` below `target/` and returns its path.
pub fn manifest(vms: &[Vm]) -> String {
    manifest_with(vms, "")
}

/// The same with more nodes beside the VMs.
pub fn manifest_with(vms: &[Vm], more: &str) -> String {
    static N: AtomicU32 = AtomicU32::new(0);
    let mut text = String::from("/dts-v1/;\n/ { compatible = \"flatland,bundle-1\"; vms {\n");
    for Vm { name, vcpus, memory, rest } in vms {
        text.push_str(&format!("{name} {{ vcpus = <{vcpus}>; memory = \"{memory}\"; {rest} }};\n"));
    }
    text.push_str(&format!("}}; {more} }};\n"));
    write(&format!("test-{}-{}.dts", std::process::id(), N.fetch_add(1, Ordering::Relaxed)), text.as_bytes())
}

/// Writes a file below `target/bundles` and returns its path.
pub fn write(name: &str, bytes: &[u8]) -> String {
    let directory: PathBuf = root().join("target/bundles");
    fs::create_dir_all(&directory).expect("target can be written");
    let path = directory.join(name);
    fs::write(&path, bytes).expect("target can be written");
    path.to_string_lossy().into_owned()
}
