//! Where a process keeps `errno`, and what its numbers mean.

pub use sites::{ErrnoPlace, errno_place};

/// Name and text of an error number; `None` for zero.
pub(crate) fn errno_text(number: i64) -> Option<String> {
    let code = i32::try_from(number).ok().filter(|code| *code != 0)?;
    let text = std::io::Error::from_raw_os_error(code).to_string();
    // Rust adds the number.
    let text = text.split(" (os error").next().unwrap_or(&text);
    Some(match NAMES.iter().find(|(number, _)| *number == code) {
        Some((_, name)) => format!("{name}: {text}"),
        None => text.to_owned(),
    })
}

macro_rules! names {
    ($($name:ident)*) => { &[$((libc::$name, stringify!($name))),*] };
}

const NAMES: &[(i32, &str)] = names!(
    EPERM ENOENT ESRCH EINTR EIO ENXIO E2BIG ENOEXEC EBADF ECHILD EAGAIN ENOMEM EACCES EFAULT ENOTBLK
    EBUSY EEXIST EXDEV ENODEV ENOTDIR EISDIR EINVAL ENFILE EMFILE ENOTTY ETXTBSY EFBIG ENOSPC ESPIPE
    EROFS EMLINK EPIPE EDOM ERANGE EDEADLK ENAMETOOLONG ENOLCK ENOSYS ENOTEMPTY ELOOP ENOMSG EIDRM
    ENODATA ETIME EPROTO EBADMSG EOVERFLOW EILSEQ EUSERS ENOTSOCK EDESTADDRREQ EMSGSIZE EPROTOTYPE
    ENOPROTOOPT EPROTONOSUPPORT ESOCKTNOSUPPORT EOPNOTSUPP EPFNOSUPPORT EAFNOSUPPORT EADDRINUSE
    EADDRNOTAVAIL ENETDOWN ENETUNREACH ENETRESET ECONNABORTED ECONNRESET ENOBUFS EISCONN ENOTCONN
    ESHUTDOWN ETIMEDOUT ECONNREFUSED EHOSTDOWN EHOSTUNREACH EALREADY EINPROGRESS ESTALE EDQUOT
    ECANCELED EOWNERDEAD ENOTRECOVERABLE
);

#[cfg(test)]
mod tests {
    use super::*;

    fn errno_offset(code: &[u8], word: Option<i64>) -> Option<i64> {
        errno_place(code, 0)?.in_process(&|_| word.map(i64::cast_unsigned))
    }

    #[test]
    fn of_the_c_library_of_this_machine() {
        let file = std::fs::File::open("/lib/x86_64-linux-gnu/libc.so.6").unwrap();
        let elf = image::symbol::Elf::read(&file).unwrap();
        let symbol = elf.symbol("__errno_location").unwrap();
        let code = elf
            .bytes(&file, symbol.address, symbol.size as usize)
            .unwrap();
        assert_eq!(errno_offset(&code, Some(-0x68)), Some(-0x68));
        assert_eq!(errno_offset(&code, None), None);
    }

    #[test]
    fn numbers_have_names() {
        assert_eq!(
            errno_text(2).as_deref(),
            Some("ENOENT: No such file or directory")
        );
        assert_eq!(errno_text(0), None);
        assert_eq!(errno_text(i64::MAX), None);
        assert!(errno_text(5000).is_some());
    }
}
