use std::path::PathBuf;

use testkit::{eventually, in_netns};

use super::*;

const LONG: Duration = Duration::from_secs(60);
const SHORT: Duration = Duration::from_millis(100);

fn sh(script: &str, stdin: &[u8], time: Duration, grace: Duration) -> Result<Output, ExecError> {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plugin");
    testkit::script(&file, script);
    run(&Job {
        file: &file,
        env: &[("CNI_COMMAND", "ADD")],
        stdin,
        deadline: Instant::now() + time,
        grace,
    })
}

/// What became of a plugin that said "begun" before its deadline. A busy machine is given more and more time for that.
fn begun(run: impl Fn(Duration) -> Output) -> Output {
    let mut time = Duration::from_millis(500);
    loop {
        let out = run(time);
        if out.stdout.starts_with(b"begun") || time > LONG {
            return out;
        }
        time *= 2;
    }
}

#[test]
fn streams_environment_and_status() {
    let out = sh(
        "cat; echo $CNI_COMMAND $HOME >&2; exit 3",
        b"in\0put",
        LONG,
        LONG,
    )
    .unwrap();
    assert_eq!(out.stdout, b"in\0put");
    let home = std::env::var("HOME").unwrap();
    assert_eq!(
        String::from_utf8(out.stderr).unwrap(),
        format!("ADD {home}\n")
    );
    assert_eq!((out.ended, out.late), (Ended::Exit(3), false));
}

#[test]
fn more_than_any_pipe_holds_and_the_end_of_a_log() {
    let big = vec![b'a'; 3 << 20];
    let script = "cat; head -c 300000 /dev/zero >&2; echo the end >&2";
    let out = sh(script, &big, LONG, LONG).unwrap();
    assert_eq!(out.stdout, big);
    assert_eq!(out.stderr.len(), STDERR_BYTES);
    assert_eq!(out.stderr_tail().len(), STDERR_TAIL_BYTES);
    assert!(out.stderr_tail().ends_with(b"\0the end\n"));
}

/// A plugin that never stops writing costs 16 MiB and its time.
#[test]
fn endless_output_is_bounded_and_ends() {
    let out = sh("exec cat /dev/zero", b"", Duration::from_secs(1), LONG).unwrap();
    assert_eq!(
        (out.ended, out.late),
        (Ended::Signal(Signal::SIGTERM), true)
    );
    assert!(out.stdout.len() <= json::MAX_BYTES + 1);
}

#[test]
fn a_signal_and_a_missing_file() {
    let out = sh("kill -SEGV $$", b"", LONG, LONG).unwrap();
    assert_eq!(
        (out.ended, out.late),
        (Ended::Signal(Signal::SIGSEGV), false)
    );
    let missing = Job {
        file: Path::new("/nowhere/plugin"),
        env: &[],
        stdin: b"",
        deadline: Instant::now() + LONG,
        grace: LONG,
    };
    let error = run(&missing).unwrap_err();
    assert_eq!(
        (error.started, error.source.kind()),
        (false, ErrorKind::NotFound)
    );
}

/// Asked to stop, a plugin has the grace to undo what it did, and to say so.
#[test]
fn the_deadline_asks_first() {
    let script = "trap 'echo undone; exit 1' TERM; echo begun; while :; do read -r x </dev/zero & wait; done";
    let out = begun(|time| sh(script, b"", time, LONG).unwrap());
    assert_eq!((out.ended, out.late), (Ended::Exit(1), true));
    assert_eq!(out.stdout, b"begun\nundone\n");
}

/// Also where the runtime itself does not listen to that signal.
#[test]
fn what_the_runtime_ignores_the_plugin_hears() {
    use nix::sys::signal::{SigHandler, SigSet, signal};
    // In a process of its own: other tests' children would inherit it.
    in_netns(|| {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTERM);
        blocked.thread_block().unwrap();
        // SAFETY: no handler runs.
        unsafe { signal(Signal::SIGTERM, SigHandler::SigIgn) }.unwrap();
        let script = "echo begun; exec sleep 600";
        let out = begun(|time| sh(script, b"", time, LONG).unwrap());
        assert_eq!(
            (out.ended, out.late),
            (Ended::Signal(Signal::SIGTERM), true)
        );
    });
}

/// Says so and goes on.
const DEAF: &str = "trap '' TERM; echo begun; while :; do :; done";

#[test]
fn and_then_kills() {
    let started = Instant::now();
    let out = begun(|time| sh(DEAF, b"", time, SHORT).unwrap());
    assert_eq!(
        (out.ended, out.late),
        (Ended::Signal(Signal::SIGKILL), true)
    );
    assert!(started.elapsed() < LONG);
}

/// What a killed plugin was waiting for must not go on working.
#[test]
fn delegates_end_with_a_plugin_that_is_stopped() {
    let script = r#"sh -c 'trap "" TERM; echo begun $$; exec sleep 1000' & wait"#;
    let out = begun(|time| sh(script, b"", time, SHORT).unwrap());
    assert!(out.late);
    let said = String::from_utf8(out.stdout).unwrap();
    let pid = said.strip_prefix("begun ").unwrap().trim();
    let proc = PathBuf::from(format!("/proc/{pid}/cmdline"));
    // Gone, or dead and waiting to be reaped by init.
    eventually(Duration::from_secs(10), || {
        std::fs::read(&proc).map_or(true, |cmdline| cmdline.is_empty())
    });
}

/// A daemon that a plugin leaves behind keeps its streams open. Nobody waits for that.
#[test]
fn what_stays_behind_is_not_waited_for() {
    let begun = Instant::now();
    let out = sh("sleep 30 & echo $!", b"", LONG, LONG).unwrap();
    assert!(begun.elapsed() < Duration::from_secs(20));
    assert_eq!((out.ended, out.late), (Ended::Exit(0), false));
    let pid = String::from_utf8(out.stdout)
        .unwrap()
        .trim()
        .parse()
        .unwrap();
    nix::sys::signal::kill(Pid::from_raw(pid), Signal::SIGKILL).expect("it was left alone");
}

/// As on a kernel without pidfds.
#[test]
fn without_a_pidfd_it_is_looked_at() {
    let shell = |script: &str, time| {
        let mut command = Command::new("sh");
        command.args(["-c", script]).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let job = Job {
            file: Path::new("sh"),
            env: &[],
            stdin: b"",
            deadline: Instant::now() + time,
            grace: SHORT,
        };
        attend(&job, &mut command.spawn().unwrap(), None).unwrap()
    };
    let out = shell("echo out; echo err >&2; exit 4", LONG);
    assert_eq!((out.ended, out.late), (Ended::Exit(4), false));
    assert_eq!(
        (out.stdout, out.stderr),
        (b"out\n".to_vec(), b"err\n".to_vec())
    );
    let out = begun(|time| shell(DEAF, time));
    assert_eq!(
        (out.ended, out.late),
        (Ended::Signal(Signal::SIGKILL), true)
    );
}

/// An installer is writing it: the reference takes that for success after a while.
#[test]
fn a_file_being_written_is_waited_for_and_then_an_error() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("plugin");
    std::fs::copy("/bin/true", &file).unwrap();
    let writer = File::options().append(true).open(&file).unwrap();
    let job = |time| Job {
        file: &file,
        env: &[],
        stdin: b"",
        deadline: Instant::now() + time,
        grace: LONG,
    };
    let begun = Instant::now();
    let error = run(&job(SHORT)).unwrap_err();
    assert_eq!(
        (error.started, error.source.kind()),
        (false, ErrorKind::ExecutableFileBusy)
    );
    assert!(begun.elapsed() >= SHORT);
    drop(writer);
    assert_eq!(run(&job(LONG)).unwrap().ended, Ended::Exit(0));
}
