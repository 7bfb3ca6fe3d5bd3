//! Name look-ups of a static build.
//!
//! glibc has "files" and "dns" built in (nss_files and nss_dns, since 2.34). For whatever else the machine's
//! nsswitch.conf names it would load a library, which a static program must not do: that library belongs to the
//! machine's own C library, of any version, and in a scratch image there is none.

use std::ffi::{CStr, c_char, c_int};

unsafe extern "C" {
    /// Replaces what nsswitch.conf says about a database (nss/nss.h). 0 where it did.
    fn __nss_configure_lookup(database: *const c_char, services: *const c_char) -> c_int;
}

/// Databases that the standard library or the HTTP client may ask, and what answers.
const LOOKUPS: [(&CStr, &CStr); 3] = [
    (c"hosts", c"files dns"),
    (c"passwd", c"files"),
    (c"group", c"files"),
];

/// Answers only from /etc and from the name servers of resolv.conf. To be called before the first look-up.
pub fn use_only_what_is_built_in() {
    for (database, services) in LOOKUPS {
        // SAFETY: two strings with an end that live as long as the program; no thread looks anything up yet.
        let changed = unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
        debug_assert_eq!(changed, 0, "{database:?}");
    }
}
