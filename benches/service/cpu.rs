//! The time that processes and threads have had on processors, to the nanosecond.

use std::{collections::HashMap, ffi::OsString, fs, time::Duration};

use rustix::time::{ClockId, clock_gettime};

use super::Outcome;

/// The threads of another process. Its own total counts in ticks of 10 ms, a twentieth of a short turn; what its
/// threads had is exact.
#[derive(Default)]
pub struct Threads {
    running: HashMap<OsString, u64>,
    /// What those had that have ended, as it was read last.
    ended: u64,
}

impl Threads {
    /// What all of them have had so far. What one does between the last look and its end is lost: that of threads which
    /// were idle before they ended is nothing.
    pub fn total(&mut self, process: u32) -> Outcome<Duration> {
        let mut running = HashMap::new();
        for thread in fs::read_dir(format!("/proc/{process}/task"))? {
            let thread = thread?;
            // It may end just now.
            let Ok(stat) = fs::read_to_string(thread.path().join("schedstat")) else { continue };
            running.insert(thread.file_name(), stat.split(' ').next().unwrap_or_default().parse()?);
        }
        for (id, before) in &self.running {
            // It has ended, and maybe another one has its id.
            if running.get(id).is_none_or(|now: &u64| now < before) {
                self.ended += before;
            }
        }
        self.running = running;
        match self.ended + self.running.values().sum::<u64>() {
            0 => Err("this kernel doesn't count what threads use (CONFIG_SCHED_INFO)".into()),
            total => Ok(Duration::from_nanos(total)),
        }
    }
}

/// What the thread that asks has had.
pub fn of_this_thread() -> Duration {
    Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default()
}
