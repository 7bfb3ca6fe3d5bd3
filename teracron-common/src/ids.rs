//! What probes, capture plans and async functions are called by: their numbers in the tables of a run. The kernel side
//! keeps them, records carry them back.

macro_rules! id {
    ($(#[$about:meta])* $name:ident) => {
        $(#[$about])*
        #[repr(transparent)]
        #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
        #[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
        pub struct $name(pub u32);

        impl $name {
            /// Of a place in its table.
            #[inline(always)]
            pub const fn from_index(index: usize) -> Self {
                Self(index as u32)
            }

            /// Its place in its table.
            #[inline(always)]
            pub const fn index(self) -> usize {
                self.0 as usize
            }
        }

        #[cfg(feature = "user")]
        // SAFETY: one 32-bit integer.
        unsafe impl aya::Pod for $name {}
    };
}

id!(
    /// A probe: a place in the run's table of names, below [`MAX_PROBES`](crate::cookie::MAX_PROBES).
    ProbeId
);
id!(
    /// A capture plan of the run, below [`MAX_PLANS`](crate::plan::MAX_PLANS); [`NONE`](Self::NONE) where there is none.
    PlanId
);
id!(
    /// An async function of the run, below [`MAX_FUTURES`](crate::future::MAX_FUTURES).
    FutureId
);

impl PlanId {
    /// No plan.
    pub const NONE: Self = Self(u32::MAX);

    /// The plan, or [`NONE`](Self::NONE).
    #[inline(always)]
    pub const fn or_none(plan: Option<Self>) -> Self {
        match plan {
            Some(plan) => plan,
            None => Self::NONE,
        }
    }
}

/// The number in a site's cookie: which table it belongs to is a matter of the program on the site.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SiteId(pub(crate) u32);

impl SiteId {
    /// Where the program wants a probe.
    #[inline(always)]
    pub const fn probe(self) -> ProbeId {
        ProbeId(self.0)
    }

    /// Where it wants a capture plan, which names the probe.
    #[inline(always)]
    pub const fn plan(self) -> PlanId {
        PlanId(self.0)
    }

    /// Where it wants an async function, which names the probe.
    #[inline(always)]
    pub const fn future(self) -> FutureId {
        FutureId(self.0)
    }
}

impl ProbeId {
    /// For the cookie of a site whose program wants a probe.
    #[inline(always)]
    pub const fn at_site(self) -> SiteId {
        SiteId(self.0)
    }
}

impl PlanId {
    /// For the cookie of a site whose program wants a plan.
    #[inline(always)]
    pub const fn at_site(self) -> SiteId {
        SiteId(self.0)
    }
}

impl FutureId {
    /// For the cookie of a site whose program wants an async function.
    #[inline(always)]
    pub const fn at_site(self) -> SiteId {
        SiteId(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn they_lie_as_the_number_does() {
        assert_eq!(size_of::<ProbeId>(), size_of::<u32>());
        assert_eq!(align_of::<PlanId>(), align_of::<u32>());
        assert_eq!(size_of::<Option<FutureId>>(), size_of::<Option<u32>>());
        assert_eq!(PlanId::or_none(Some(PlanId::from_index(3))).index(), 3);
        assert_eq!(PlanId::or_none(None), PlanId::NONE);
    }
}
