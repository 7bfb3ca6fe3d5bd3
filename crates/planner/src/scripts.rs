//! Programs that run scripts: what is called in a script is no function of a file, so that no probe finds it.
//!
//! They are known by what their files export, never by what these are called: an interpreter may be linked into any
//! program, and any program may be called `python`.

use image::{Image, symbol::Elf};
use model::text;

/// What runs scripts.
struct Runtime {
    /// As its users call it.
    name: &'static str,
    /// What they would like to trace.
    wanted: &'static str,
    /// Functions that it alone exports, all of them.
    exports: &'static [&'static str],
    /// What can be traced in it.
    instead: &'static str,
    /// Functions of its file that show something of what scripts do.
    examples: &'static [&'static str],
}

const RUNTIMES: [Runtime; 8] = [
    Runtime {
        name: "CPython",
        wanted: "functions of Python",
        exports: &["PyEval_EvalCode", "Py_Main", "PyRun_SimpleFileExFlags"],
        instead: "its own C functions, those of extension modules and of libraries that scripts call",
        examples: &["PyImport_ImportModuleLevelObject", "PyObject_Str"],
    },
    Runtime {
        name: "Node.js",
        wanted: "functions of JavaScript",
        exports: &["napi_create_function", "_ZN4node5StartEiPPc"],
        instead: "functions of Node.js, of libuv and OpenSSL within it, and of native addons (.node)",
        examples: &["uv_fs_open", "SSL_read"],
    },
    Runtime {
        name: "a Java virtual machine",
        wanted: "methods of Java and its kin",
        exports: &["JNI_CreateJavaVM", "JVM_DefineClass"],
        instead: "functions of the virtual machine, and native methods (Java_…) of libraries",
        examples: &["JVM_FindClassFromCaller", "JVM_DefineClassWithSource"],
    },
    Runtime {
        name: "Ruby",
        wanted: "methods of Ruby",
        exports: &["ruby_run_node", "rb_define_method"],
        instead: "its own C functions, and those of extensions and libraries that scripts call",
        examples: &["rb_require", "rb_funcallv"],
    },
    Runtime {
        name: ".NET",
        wanted: "methods of .NET",
        exports: &["coreclr_initialize", "coreclr_execute_assembly"],
        instead: "functions of native libraries that it calls (libSystem.Native.so)",
        examples: &[],
    },
    Runtime {
        name: ".NET",
        wanted: "methods of .NET",
        exports: &["DotNetRuntimeInfo"],
        instead: "functions of native libraries that it calls",
        examples: &[],
    },
    Runtime {
        name: "PHP",
        wanted: "functions of PHP",
        exports: &["php_request_startup", "php_execute_script"],
        instead: "its own C functions, and those of extensions and libraries that scripts call",
        examples: &["php_execute_script", "compile_file"],
    },
    Runtime {
        name: "Perl",
        wanted: "functions of Perl",
        exports: &["perl_parse", "perl_run"],
        instead: "its own C functions, and those of extensions and libraries that scripts call",
        examples: &["Perl_require_pv"],
    },
];

/// What to say where a file runs scripts, as a sentence; `None` where it does not.
pub(crate) fn said(module: &Image, elf: &Elf) -> Option<String> {
    let runtime = runtime_of(elf)?;
    let has = |name: &&&str| elf.symbols.iter().any(|symbol| symbol.name == **name);
    let example = runtime.examples.iter().find(has);
    let example = example.map_or_else(String::new, |name| format!(", as `--probe {name}`"));
    Some(format!(
        "{} is {}: {} are in no file and can't be traced; what can be are {}{example}",
        text::shown(module.name()),
        runtime.name,
        runtime.wanted,
        runtime.instead
    ))
}

fn runtime_of(elf: &Elf) -> Option<&'static Runtime> {
    let wanted = |name: &str| {
        let mut exports = RUNTIMES.iter().flat_map(|runtime| runtime.exports);
        exports.any(|export| *export == name)
    };
    let there: Vec<&str> = elf
        .symbols
        .iter()
        .map(|symbol| symbol.name.as_str())
        .filter(|name| wanted(name))
        .collect();
    let mut runtimes = RUNTIMES.iter();
    runtimes.find(|runtime| runtime.exports.iter().all(|export| there.contains(export)))
}

#[cfg(test)]
mod tests {
    use image::symbol::{Origin, Symbol, SymbolKind};

    use super::*;

    fn of(exports: &[&str]) -> Option<&'static str> {
        let symbols = exports.iter().map(|name| Symbol {
            name: (*name).to_owned(),
            version: None,
            address: 0x10,
            size: 4,
            kind: SymbolKind::Function,
            is_local: false,
            origin: Origin::Exported,
        });
        let elf = Elf {
            symbols: symbols.collect(),
            ..Elf::default()
        };
        runtime_of(&elf).map(|runtime| runtime.name)
    }

    #[test]
    fn runtimes_are_known_by_what_they_export() {
        for runtime in &RUNTIMES {
            assert_eq!(of(runtime.exports), Some(runtime.name));
            // A part of it may be anybody's.
            let part = runtime
                .exports
                .split_first()
                .map_or(&[][..], |(_, part)| part);
            assert_eq!(of(part), None, "{}", runtime.name);
        }
        assert_eq!(of(&["main", "python3", "libjvm"]), None);
    }
}
