//! Sets of probes that follow each other while the session runs, so that no call is lost or counted
//! twice.

use teracron_common::control::OVER;

use super::{
    Scope, Session,
    background::detaching,
    links::{self, Attached, Attacher},
    programs::KernelProgram,
};
use crate::{assemble::monotonic_ns, process::face};
use image::Image;
use model::error::Result;
use planner::probe::Site;

impl Session {
    /// What attaches the next set of probes from another thread; `None` on kernels whose multi links don't know
    /// processes.
    pub fn next_attacher(&self) -> Option<Attacher> {
        self.attacher(self.control.next_generation())
    }

    /// What attaches sites of the present set of probes from another thread; `None` on kernels whose multi links
    /// don't know processes.
    pub fn present_attacher(&self) -> Option<Attacher> {
        self.attacher(self.control.generation as u8)
    }

    fn attacher(&self, generation: u8) -> Option<Attacher> {
        let by_process = self.uses_multi_links() && self.features().multi_link_by_process;
        by_process.then(|| Attacher {
            programs: self.multi.clone(),
            plans: self.plans.clone(),
            generation,
        })
    }

    /// The set of probes that counts.
    pub fn generation(&self) -> u8 {
        self.control.generation as u8
    }

    /// Attaches a file's sites of the next set of probes, which does not count yet.
    ///
    /// # Errors
    /// As for [`attach`](Self::attach).
    pub fn attach_next(
        &mut self,
        module: &Image,
        sites: &[Site],
        scope: Scope,
    ) -> Result<Vec<Attached>> {
        self.attach_as(self.control.next_generation(), module, sites, scope)
    }

    pub(super) fn attach_as(
        &mut self,
        generation: u8,
        module: &Image,
        sites: &[Site],
        scope: Scope,
    ) -> Result<Vec<Attached>> {
        // Before 6.12 a multi link for one process sees one of its threads; and by a main thread that has ended it
        // reaches nothing.
        let is_reached = match scope {
            Scope::AllProcesses => true,
            Scope::OneProcess(pid) => self.features().multi_link_by_process && face(pid) == pid,
        };
        if self.uses_multi_links() && is_reached {
            let programs = self.multi.clone();
            return Attacher {
                programs,
                plans: self.plans.clone(),
                generation,
            }
            .attach(module, sites, scope);
        }
        self.load_for(sites)?;
        let tid = match scope {
            Scope::AllProcesses => 0,
            Scope::OneProcess(pid) => face(pid),
        };
        let sites = KernelProgram::on_sites().flat_map(|(program, _)| {
            let sites = links::sites_of(program, sites, generation);
            sites.into_iter().map(move |site| (program, site))
        });
        self.attach_perf(module, sites, scope, tid)
    }

    /// From now on the set of probes counts that `next` is; the one before is detached: its beginnings
    /// in the background, its ends when [`settle_retired`](Self::settle_retired) finds no call open.
    ///
    /// # Errors
    /// Where the kernel side can't be told; then everything is as before.
    pub fn change_over(&mut self, next: Vec<Attached>) -> Result<()> {
        // Generations are counted modulo 4: of old beginnings there may be one set at most.
        if let Some(releasing) = self.releasing.take() {
            let _ = releasing.join();
        }
        let before = self.control.generation;
        self.control.generation = self.control.next_generation().into();
        if let Err(error) = self.tell() {
            self.control.generation = before;
            self.releaser.release(next);
            return Err(error);
        }
        let next = self.without_removed(next);
        let old = std::mem::replace(&mut self.links, next);
        // What watches the unwinder belongs to no set.
        let (of_spans, unwinders): (Vec<_>, Vec<_>) = old
            .into_iter()
            .partition(|attached| attached.program.is_of_set());
        self.links.extend(unwinders);
        let (enters, ends): (Vec<_>, Vec<_>) = of_spans
            .into_iter()
            .partition(|attached| attached.program.is_entry());
        self.releasing = detaching("teracron-detach", move || links::release(enters));
        self.retired.push((before as u8, ends));
        Ok(())
    }

    /// From one instant on, which it answers (`CLOCK_MONOTONIC`, in nanoseconds), no call begins to count any more:
    /// detaching takes a while, and beginnings of a caller and its callees don't leave at once.
    ///
    /// # Errors
    /// Where the kernel side can't be told.
    pub fn count_no_more(&mut self) -> Result<u64> {
        // Before, not after: what has ended by then had all its callees counted.
        let at_ns = monotonic_ns();
        self.control.generation = OVER;
        self.tell()?;
        Ok(at_ns)
    }

    /// Keeps what was attached for a process since the set of probes of `generation` was made; what belongs to
    /// another set by now is let go.
    pub fn keep(&mut self, attached: Vec<Attached>, generation: u8) {
        let attached = self.without_removed(attached);
        let is_present = generation == self.generation();
        let (keep, late): (Vec<_>, Vec<_>) = attached
            .into_iter()
            .partition(|attached| is_present || !attached.program.is_of_set());
        self.links.extend(keep);
        self.releaser.release(late);
    }

    /// The thread that a process's probes are tied to, where they are tied to one: they end with it.
    pub fn tied_to(&self, pid: u32) -> Option<u32> {
        self.tied.get(&pid).copied()
    }

    /// Ties a process's probes to a thread, whose end the kernel side tells.
    pub(super) fn tie(&mut self, pid: u32, tid: u32) {
        if self.tied.insert(pid, tid) != Some(tid) && pid != tid {
            // Where there is no room it is noticed a second later.
            let _ = self.maps.tied.insert(tid, pid, 0);
        }
    }

    /// Forgets the thread that a process's probes were tied to.
    pub fn untie(&mut self, pid: u32) {
        if let Some(tid) = self.tied.remove(&pid) {
            let _ = self.maps.tied.remove(&tid);
        }
    }

    /// Whether probes of a set are attached to this process alone.
    pub fn has_set_of(&self, pid: u32) -> bool {
        self.links.iter().any(|attached| attached.is_of_set_of(pid))
    }

    /// Lets go of what is attached to one process: it has ended, or is another thread's now.
    pub fn release_process(&mut self, pid: u32) {
        self.release_where(|attached| attached.scope == Scope::OneProcess(pid));
    }

    /// Lets go of what was attached to a process with return probes: beginnings and all.
    pub fn release_returns(&mut self, pid: u32) {
        self.release_where(|attached| attached.is_of_set_of(pid));
    }

    /// Whether breakpoints of a set of probes sit in a file for every process.
    pub fn is_file_wide(&self, key: image::FileKey) -> bool {
        self.links.iter().any(|attached| {
            attached.key == key
                && attached.scope == Scope::AllProcesses
                && attached.program.is_of_set()
        })
    }

    /// Whether return addresses of a process are replaced.
    pub fn has_return_probes(&self, pid: u32) -> bool {
        self.links.iter().any(|attached| {
            attached.program.is_return_probe() && attached.scope == Scope::OneProcess(pid)
        })
    }

    fn release_where(&mut self, is_meant: impl Fn(&Attached) -> bool) {
        let gone = self.take_where(is_meant);
        self.releaser.release(gone);
    }

    /// Takes what is meant out of what is attached, ends of earlier sets included.
    pub(super) fn take_where(&mut self, is_meant: impl Fn(&Attached) -> bool) -> Vec<Attached> {
        let mut gone: Vec<Attached> = self.links.extract_if(.., |link| is_meant(link)).collect();
        for (_, ends) in &mut self.retired {
            gone.extend(ends.extract_if(.., |link| is_meant(link)));
        }
        gone
    }

    /// Detaches the ends of earlier sets of probes that no open call needs any more.
    pub fn settle_retired(&mut self) {
        if self.retired.is_empty() {
            return;
        }
        let mut open = [false; 4];
        self.for_each_open(|frame| {
            if let Some(place) = open.get_mut(usize::from(frame.generation)) {
                *place = true;
            }
        });
        let (keep, done): (Vec<_>, Vec<_>) = std::mem::take(&mut self.retired)
            .into_iter()
            .partition(|(generation, _)| open.get(usize::from(*generation)) == Some(&true));
        self.retired = keep;
        if !done.is_empty() {
            self.releaser
                .release(done.into_iter().flat_map(|(_, ends)| ends).collect());
        }
    }
}
