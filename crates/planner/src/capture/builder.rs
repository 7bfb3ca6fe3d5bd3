//! Writing steps.

use teracron_common::{
    Plan, ProbeId,
    plan::{Code, Compare, MAX_STEPS, PLACE_CFA, PLACE_KEPT, PLACES, PLACES_FROM, Step},
};

use super::{CapturePlan, Key};
use image::debug::{Address, Base};

/// A plan in the making.
#[derive(Default)]
pub(super) struct Builder {
    steps: Vec<Step>,
    keys: Vec<Key>,
}

/// A jump whose destination is not known yet.
#[must_use]
pub(super) struct Jump(usize);

impl Builder {
    /// Notes an item; answers its number.
    pub(super) fn key(&mut self, key: Key) -> u8 {
        self.keys.push(key);
        (self.keys.len() - 1) as u8
    }

    /// Where the plan is, to go back to with [`rewind`](Self::rewind).
    pub(super) fn mark(&self) -> (usize, usize) {
        (self.steps.len(), self.keys.len())
    }

    /// Forgets what was written since.
    pub(super) fn rewind(&mut self, (steps, keys): (usize, usize)) {
        self.steps.truncate(steps);
        self.keys.truncate(keys);
    }

    /// Adds a step.
    pub(super) fn push(&mut self, code: Code, a: u8, operand: u64) {
        self.steps.push(Step {
            code: code as u8,
            a,
            operand,
            ..Step::default()
        });
    }

    /// Adds a step that makes an item.
    pub(super) fn item(&mut self, code: Code, a: u8, key: u8, operand: u64) {
        self.push(code, a, operand);
        if let Some(step) = self.steps.last_mut() {
            step.key = key;
        }
    }

    /// Adds a jump.
    pub(super) fn jump(&mut self, how: Compare, operand: u64) -> Jump {
        self.push(Code::Jump, how as u8, operand);
        Jump(self.steps.len() - 1)
    }

    /// Adds a step that goes elsewhere where it can't be performed.
    pub(super) fn step(&mut self, code: Code) -> Jump {
        self.push(code, 0, 0);
        Jump(self.steps.len() - 1)
    }

    /// Adds a jump that is always taken.
    pub(super) fn skip(&mut self) -> Jump {
        // No value is above all ones: what holds always is that it is not.
        self.jump(Compare::BelowEqual, u64::MAX)
    }

    /// A jump comes here.
    pub(super) fn land(&mut self, Jump(from): Jump) {
        let here = self.steps.len() as u32;
        if let Some(step) = self.steps.get_mut(from) {
            step.to = here;
        }
    }

    /// Loads `size` bytes from where the value points; `key` is missing where they can't be read.
    pub(super) fn load(&mut self, size: u8, key: u8) {
        self.item(Code::Load, size, key, 0);
    }

    /// What was read since `from` is of `key`: where something can't be read, the plan goes on here.
    pub(super) fn close(&mut self, from: (usize, usize)) {
        let here = self.steps.len() as u32;
        for step in self.steps.iter_mut().skip(from.0) {
            if step.code == Code::Load as u8 || step.code == Code::Errno as u8 {
                step.to = here;
            }
        }
    }

    /// The value becomes an address.
    pub(super) fn address(&mut self, address: &Address, key: u8) {
        match address.base {
            Base::Register(number) => self.push(Code::Place, number, 0),
            Base::Frame => self.push(Code::Place, PLACE_CFA, 0),
            Base::Nothing => self.push(Code::Constant, 0, 0),
            Base::Kept => self.push(Code::Place, PLACE_KEPT, 0),
        }
        self.add(address.offset);
        for offset in &address.loads {
            self.load(8, key);
            self.add(*offset);
        }
    }

    /// Adds a constant to the value.
    pub(super) fn add(&mut self, offset: i64) {
        if offset != 0 {
            self.push(Code::Add, 0, offset as u64);
        }
    }

    /// A place of the plan's own.
    pub(super) fn place(number: u8) -> u8 {
        (PLACES_FROM + number).min(PLACES as u8 - 1)
    }

    /// The plan; `None` where it is empty, or longer than the kernel side takes.
    pub(super) fn finish(self, probe: ProbeId) -> Option<CapturePlan> {
        if self.steps.is_empty() || self.steps.len() >= MAX_STEPS {
            return None;
        }
        let mut steps = [Step::default(); MAX_STEPS];
        for (place, step) in steps.iter_mut().zip(&self.steps) {
            *place = *step;
        }
        Some(CapturePlan {
            steps: Plan {
                probe,
                len: self.steps.len() as u32,
                steps,
            },
            keys: self.keys,
            failure: None,
            at_exit: false,
        })
    }

    /// Whether one more capture fits: what [`finish`](Self::finish) would refuse.
    pub(super) fn is_full(&self) -> bool {
        self.steps.len() >= MAX_STEPS - 16
    }
}
