//! Plans for hand-written code, for every function of real programs, and for nonsense.
//!
//! The check of a plan shares nothing with the planner but the decoder: it walks every path through
//! the function and looks when the sites fire.

use std::{
    collections::{HashMap, HashSet},
    fs::File,
    path::{Path, PathBuf},
};

use iced_x86::{Decoder, DecoderOptions, FlowControl, Mnemonic};
use proptest::prelude::*;

use image::symbol::{Elf, Starts};
use planner::{find::Functions, probe_spec::FunctionPattern};
use sites::*;

const RULES: KernelRules = KernelRules {
    nop5: Nop5::Optimised,
    whole: false,
};

fn code(bytes: &[u8]) -> Code {
    Code::decode(&[CodePart {
        address: 0x1000,
        bytes: bytes.to_vec(),
    }])
    .unwrap()
}

/// The condition code of a `jcc`, as its opcode has it (Intel SDM volume 2, appendix A).
fn condition(instruction: &[u8]) -> Option<u8> {
    let opcode = instruction.iter().position(
        |byte| !matches!(byte, 0x26 | 0x2e | 0x36 | 0x3e | 0x40..=0x4f | 0x64..=0x66 | 0xf2 | 0xf3),
    )?;
    match instruction[opcode..] {
        [code @ 0x70..=0x7f, ..] | [0x0f, code @ 0x80..=0x8f, ..] => Some(code & 15),
        _ => None,
    }
}

fn context(return_probe: ReturnProbe) -> Context<'static> {
    Context {
        rules: RULES,
        read_data: &|_, _| None,
        is_probed: &|_| false,
        return_probe,
        go: false,
        results: 0,
    }
}

fn planned(bytes: &[u8]) -> Result<SitePlan, Refusal> {
    plan(&code(bytes), &context(ReturnProbe::Never))
}

fn exits(plan: &SitePlan) -> &[ExitSite] {
    match &plan.exit {
        ExitPlan::Sites(sites) => sites,
        ExitPlan::ReturnProbe => &[],
    }
}

#[test]
fn the_entry_moves_to_the_first_emulated_instruction() {
    // endbr64; push rbp; mov rbp,rsp; nop; pop rbp; ret
    let plan = planned(&[
        0xf3, 0x0f, 0x1e, 0xfa, 0x55, 0x48, 0x89, 0xe5, 0x90, 0x5d, 0xc3,
    ])
    .unwrap();
    assert_eq!(
        (plan.entry.address, plan.entry.cfa_offset, plan.entry.cost),
        (0x1004, 8, Cost::Emulated)
    );
    // The exit moves up to the nop, where the frame address is two words above the stack pointer.
    let exit = exits(&plan)[0];
    assert_eq!(
        (exit.address, exit.base, exit.cfa_offset),
        (0x1008, CfaBase::StackPointer, 16)
    );
    // endbr64; sub rsp,24; call +0; add rsp,24; ret
    let plan = planned(&[
        0xf3, 0x0f, 0x1e, 0xfa, 0x48, 0x83, 0xec, 0x18, 0xe8, 0, 0, 0, 0, 0x48, 0x83, 0xc4, 0x18,
        0xc3,
    ])
    .unwrap();
    assert_eq!((plan.entry.address, plan.entry.cfa_offset), (0x1008, 32));
    assert_eq!(exits(&plan)[0].address, 0x1011);
}

#[test]
fn the_entry_stays_where_an_argument_would_change() {
    // endbr64; mov edi,1; push rbx; pop rbx; ret
    let plan = planned(&[0xf3, 0x0f, 0x1e, 0xfa, 0xbf, 1, 0, 0, 0, 0x53, 0x5b, 0xc3]).unwrap();
    assert_eq!(
        (plan.entry.address, plan.entry.cost),
        (0x1000, Cost::SingleStep)
    );
    // movaps xmm1,xmm0; push rbx; pop rbx; ret
    let plan = planned(&[0x0f, 0x28, 0xc8, 0x53, 0x5b, 0xc3]).unwrap();
    assert_eq!(plan.entry.address, 0x1000);
}

#[test]
fn the_entry_is_no_jump_target() {
    // endbr64; push rbx (target of the jump); dec edi; jne push; ret
    let plan = planned(&[0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0xff, 0xcf, 0x75, 0xfb, 0xc3]).unwrap();
    assert_eq!(plan.entry.address, 0x1000);
}

#[test]
fn a_nop5_is_no_site_where_the_red_zone_is_in_use() {
    // mov [rsp-8],rdi; nop5; mov rax,[rsp-8]; ret
    let used = [
        0x48, 0x89, 0x7c, 0x24, 0xf8, 0x0f, 0x1f, 0x44, 0, 0, 0x48, 0x8b, 0x44, 0x24, 0xf8, 0xc3,
    ];
    assert_eq!(planned(&used).unwrap().entry.address, 0x1000);
    // At the entry nothing is in use yet.
    let fresh = [0x0f, 0x1f, 0x44, 0, 0, 0xc3];
    let plan = planned(&fresh).unwrap();
    assert_eq!(
        (plan.entry.address, plan.entry.cost),
        (0x1000, Cost::Optimised)
    );
    // Never at an exit.
    assert_eq!(exits(&plan)[0].address, 0x1005);
}

#[test]
fn a_nop5_is_left_alone_where_a_forked_child_would_die() {
    let planned = |bytes: &[u8], return_probe| {
        let context = Context {
            rules: KernelRules {
                nop5: Nop5::Unsafe,
                whole: false,
            },
            ..context(return_probe)
        };
        plan(&code(bytes), &context)
    };
    // nop5; push rbx; mov ebx,edi; nop5; pop rbx; ret
    let bytes = [
        0x0f, 0x1f, 0x44, 0, 0, 0x53, 0x89, 0xfb, 0x0f, 0x1f, 0x44, 0, 0, 0x5b, 0xc3,
    ];
    for return_probe in [
        ReturnProbe::Never,
        ReturnProbe::IfCheaper,
        ReturnProbe::Always,
    ] {
        let plan = planned(&bytes, return_probe).unwrap();
        assert_eq!(
            (plan.entry.address, plan.entry.cost),
            (0x1005, Cost::Emulated)
        );
        assert!(exits(&plan).iter().all(|exit| exit.address != 0x1008));
    }
    // nop5; lea eax,[rdi+1]; ret: the next one costs a step.
    let plan = planned(
        &[0x0f, 0x1f, 0x44, 0, 0, 0x8d, 0x47, 1, 0xc3],
        ReturnProbe::Never,
    );
    assert_eq!(plan.unwrap().entry.address, 0x1005);
    // nop5, which is jumped to; dec edi; jne nop5; ret: nothing can stand for it.
    let bytes = [0x0f, 0x1f, 0x44, 0, 0, 0xff, 0xcf, 0x75, 0xf7, 0xc3];
    assert_eq!(
        planned(&bytes, ReturnProbe::Never),
        Err(Refusal::LongNop(0x1000))
    );
    // Nor where the jumps are not known: nop5; jmp [rax*8+…] with a frame
    let bytes = [0x0f, 0x1f, 0x44, 0, 0, 0x53, 0xff, 0xe0];
    assert_eq!(
        planned(&bytes, ReturnProbe::IfCheaper),
        Err(Refusal::LongNop(0x1000))
    );
}

#[test]
fn a_jump_over_the_way_out_is_watched_under_its_condition() {
    // push rbp; test edi,edi; jne +2; pop rbp; ret; ud2
    let plan = planned(&[0x55, 0x85, 0xff, 0x75, 0x02, 0x5d, 0xc3, 0x0f, 0x0b]).unwrap();
    let exit = exits(&plan)[0];
    // The return is reached where the jump is not taken: "equal".
    assert_eq!(
        (exit.address, exit.condition, exit.cost),
        (0x1003, Some(4), Cost::Emulated)
    );
    assert_eq!(exit.cfa_offset, 16);
}

#[test]
fn leave_makes_the_frame_pointer_the_base() {
    // push rbp; mov rbp,rsp; sub rsp,16; nop; leave; ret
    let plan = planned(&[
        0x55, 0x48, 0x89, 0xe5, 0x48, 0x83, 0xec, 0x10, 0x90, 0xc9, 0xc3,
    ])
    .unwrap();
    let exit = exits(&plan)[0];
    assert_eq!(
        (exit.address, exit.base, exit.cfa_offset),
        (0x1008, CfaBase::FramePointer, 16)
    );
}

#[test]
fn tail_calls_are_ways_out() {
    // jmp 0x2000
    let bytes = [0xe9, 0xfb, 0x0f, 0, 0];
    let plan = planned(&bytes).unwrap();
    // The only instruction is the entry site; the exit has to share it.
    assert_eq!(exits(&plan).len(), 1);
    assert!(!plan.tail_calls);
    // To a probed function: its end is this one's.
    let probed = sites::plan(
        &code(&bytes),
        &Context {
            is_probed: &|address| address == 0x2000,
            ..context(ReturnProbe::Never)
        },
    )
    .unwrap();
    assert!(exits(&probed).is_empty() && probed.tail_calls);
    // je 0x2000; ret
    let plan = planned(&[0x0f, 0x84, 0xfa, 0x0f, 0, 0, 0xc3]).unwrap();
    assert_eq!(exits(&plan)[0].condition, Some(4));
    assert_eq!(exits(&plan).len(), 2);
}

#[test]
fn what_can_not_be_trusted_is_refused() {
    // jmp into the middle of an instruction
    assert!(matches!(
        planned(&[0xeb, 0x01, 0xb8, 1, 2, 3, 4, 0xc3]),
        Err(Refusal::Overlapping(_))
    ));
    // no instruction
    let bad = CodePart {
        address: 0x1000,
        bytes: vec![0x90, 0x06, 0xc3],
    };
    assert!(matches!(
        Code::decode(&[bad]),
        Err(Refusal::Undecodable(0x1001))
    ));
    // runs on
    assert!(matches!(planned(&[0x31, 0xc0]), Err(Refusal::RunsOn(_))));
    // a switch without its table: lea rdx,[rip+0x100]; movsxd rax,[rdx+rdi*4]; add rax,rdx; jmp rax
    let switch = [
        0x48, 0x8d, 0x15, 0, 1, 0, 0, 0x48, 0x63, 0x04, 0xba, 0x48, 0x01, 0xd0, 0xff, 0xe0,
    ];
    assert!(matches!(planned(&switch), Err(Refusal::UnresolvedJump(_))));
    // …is fine for a return probe, where one is safe.
    let by_return = plan(&code(&switch), &context(ReturnProbe::IfCheaper)).unwrap();
    assert_eq!(
        (by_return.entry.address, by_return.exit),
        (0x1000, ExitPlan::ReturnProbe)
    );
    // jrcxz out of the function
    assert!(matches!(
        planned(&[0xe3, 0x10, 0xc3]),
        Err(Refusal::UnwatchableJump(_))
    ));
    assert!(matches!(Code::decode(&[]), Err(Refusal::Empty)));
}

#[test]
fn a_return_probe_is_chosen_only_where_it_is_allowed_and_cheaper() {
    // endbr64; push rbx; mov ebx,edi; pop rbx; ret: the return would be stepped over
    let bytes = [0xf3, 0x0f, 0x1e, 0xfa, 0x53, 0x89, 0xfb, 0x5b, 0xc3];
    let allowed = plan(&code(&bytes), &context(ReturnProbe::IfCheaper)).unwrap();
    assert_eq!(allowed.exit, ExitPlan::ReturnProbe);
    // Its entry is where the stack pointer is still that of the call.
    assert_eq!(
        (allowed.entry.address, allowed.entry.cfa_offset),
        (0x1004, 8)
    );
    assert_ne!(planned(&bytes).unwrap().exit, ExitPlan::ReturnProbe);
}

/// Walks every path: the entry site must fire exactly once and before anything else, an exit site
/// exactly once on the way out and never before, and nothing is called after it.
fn check(code: &Code, plan: &SitePlan, read_data: &ReadData<'_>) {
    let flow = Flow::analyse(code, read_data).unwrap();
    let entry = code
        .at(plan.entry.address)
        .expect("the entry site is on an instruction");
    let mut sites: HashMap<usize, Vec<&ExitSite>> = HashMap::new();
    for site in exits(plan) {
        let index = code
            .at(site.address)
            .expect("an exit site is on an instruction");
        sites.entry(index).or_default().push(site);
    }
    let by_return = plan.exit == ExitPlan::ReturnProbe;
    // (instruction, entered, left)
    let start = code.at(code.entry()).unwrap();
    let mut work = vec![(start, false, false)];
    let mut seen = HashSet::new();
    while let Some((index, mut entered, left)) = work.pop() {
        if !seen.insert((index, entered, left)) {
            continue;
        }
        let address = code.address(index).unwrap();
        let bytes = code.bytes(index);
        let instruction = &Decoder::with_ip(64, bytes, address, DecoderOptions::NONE).decode();
        if index == entry {
            assert!(
                !entered || plan.tail_calls,
                "the entry fires twice at {:#x}",
                instruction.ip()
            );
            entered = true;
        }
        let here = sites.get(&index).map_or(&[][..], Vec::as_slice);
        let leave = flow.leaves.iter().find(|leave| leave.index == index);
        assert!(
            !(left
                && matches!(
                    instruction.flow_control(),
                    FlowControl::Call | FlowControl::IndirectCall
                )),
            "a call after the exit at {:#x}",
            instruction.ip()
        );
        // The ways on: (index, condition under which it is taken).
        let condition = condition(bytes);
        let mut on: Vec<(Option<usize>, Option<u8>)> = Vec::new();
        let following = (!code.ends_part(index)).then_some(index + 1);
        match (leave, instruction.flow_control()) {
            (Some(leave), _) => {
                on.push((None, leave.condition));
                if let Some(condition) = leave.condition {
                    on.push((following, Some(condition ^ 1)));
                }
            }
            (None, FlowControl::ConditionalBranch) => {
                on.push((code.at(instruction.near_branch_target()), condition));
                on.push((following, condition.map(|condition| condition ^ 1)));
            }
            (None, FlowControl::UnconditionalBranch) => {
                on.push((code.at(instruction.near_branch_target()), None));
            }
            (None, FlowControl::IndirectBranch) => {
                for to in flow.destinations(index) {
                    on.push((Some(*to), None));
                }
            }
            (None, FlowControl::Exception) => {}
            (None, FlowControl::Interrupt) if instruction.mnemonic() == Mnemonic::Int3 => {}
            _ if instruction.mnemonic() == Mnemonic::Hlt => {}
            _ => {
                if following.is_some() {
                    on.push((following, None));
                }
            }
        }
        for (to, taken) in on {
            let firing = here.iter().filter(|site| match (site.condition, taken) {
                (None, _) => true,
                (Some(wanted), Some(taken)) => wanted == taken,
                (Some(_), None) => panic!("a condition on an instruction that has none"),
            });
            let fired = firing.count();
            let fires = fired > 0;
            assert!(
                fired < 2 && !(fires && left),
                "an exit fires twice at {:#x}",
                instruction.ip()
            );
            let left = left || fires;
            assert!(
                !fires || entered,
                "an exit before the entry at {:#x}",
                instruction.ip()
            );
            match to {
                Some(to) => work.push((to, entered, left)),
                None => {
                    assert!(entered, "left without the entry at {:#x}", instruction.ip());
                    let to_probed =
                        leave.is_some_and(|leave| leave.is_tail_call()) && plan.tail_calls;
                    assert!(
                        left || by_return || to_probed,
                        "left unseen at {:#x}",
                        instruction.ip()
                    );
                }
            }
        }
    }
}

/// Every function of a file: a plan that holds, or a refusal.
fn check_file(path: &Path) -> (usize, usize, HashMap<String, usize>) {
    let file = File::open(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    let elf = Elf::read(&file).unwrap();
    let functions = Functions::of(&elf).matching(&FunctionPattern::Glob("*".to_owned()));
    let addresses: HashSet<u64> = functions.iter().map(|function| function.address).collect();
    let starts = Starts::of(&elf, &file);
    let read_data = |address: u64, len: usize| elf.bytes(&file, address, len);
    let (mut good, mut refused) = (0, 0);
    let mut reasons: HashMap<String, usize> = HashMap::new();
    for function in &functions {
        if function.size == 0 {
            continue;
        }
        let Ok(code) = function.code(&starts) else {
            refused += 1;
            *reasons.entry("decode".to_owned()).or_default() += 1;
            continue;
        };
        for (return_probe, all) in [
            (ReturnProbe::Never, false),
            (ReturnProbe::Never, true),
            (ReturnProbe::IfCheaper, false),
        ] {
            let context = Context {
                rules: RULES,
                read_data: &read_data,
                is_probed: &|address| all && addresses.contains(&address),
                return_probe,
                go: false,
                results: 0,
            };
            match plan(&code, &context) {
                // What could not be analysed can only have a return probe, and can't be checked.
                Ok(plan) if Flow::analyse(&code, &read_data).is_err() => {
                    assert_eq!(plan.exit, ExitPlan::ReturnProbe);
                }
                Ok(plan) => {
                    check(&code, &plan, &read_data);
                    good += usize::from(!all && return_probe == ReturnProbe::Never);
                }
                Err(refusal) => {
                    if !all && return_probe == ReturnProbe::Never {
                        refused += 1;
                        let kind = format!("{refusal:?}");
                        let kind = kind.split('(').next().unwrap_or_default().to_owned();
                        *reasons.entry(kind).or_default() += 1;
                    }
                }
            }
        }
    }
    println!(
        "{}: {good} planned, {refused} refused {reasons:?}",
        path.display()
    );
    (good, refused, reasons)
}

/// Programs on this machine; at least git, python3, the C and C++ libraries must be here.
fn real_files() -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = [
        "/lib/x86_64-linux-gnu/libc.so.6",
        "/usr/lib/x86_64-linux-gnu/libstdc++.so.6",
        "/lib/x86_64-linux-gnu/libgcc_s.so.1",
        "/lib/x86_64-linux-gnu/libm.so.6",
    ]
    .iter()
    .map(PathBuf::from)
    .collect();
    for program in ["git", "python3"] {
        files.push(which(program));
    }
    // Behind a version manager's script the program itself is elsewhere.
    files.extend(
        std::fs::read_dir("/root/.pyenv/versions")
            .into_iter()
            .flatten()
            .flatten()
            .map(|version| version.path().join("bin/python3")),
    );
    for version in std::fs::read_dir("/root/.pyenv/versions")
        .into_iter()
        .flatten()
        .flatten()
    {
        let libraries = std::fs::read_dir(version.path().join("lib"))
            .into_iter()
            .flatten()
            .flatten();
        files.extend(libraries.map(|library| library.path()).find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().ends_with(".so.1.0"))
        }));
    }
    // Ourselves: Rust, with symbols.
    files.push(std::env::current_exe().unwrap());
    files.retain(|path| {
        if !path.is_file() {
            return false;
        }
        let mut magic = [0; 4];
        std::io::Read::read_exact(&mut File::open(path).unwrap(), &mut magic).unwrap();
        &magic == b"\x7fELF"
    });
    files
}

fn which(program: &str) -> PathBuf {
    std::env::split_paths(&std::env::var_os("PATH").unwrap())
        .map(|folder| folder.join(program))
        .find(|path| path.is_file())
        .unwrap_or_else(|| panic!("{program} is needed for this test"))
}

#[test]
fn every_function_of_real_programs() {
    for path in real_files() {
        let (good, refused, _) = check_file(&path);
        // A stripped program exports little; its libraries make up for it.
        assert!(good > 0, "{}", path.display());
        // Most of it is probeable, or the planner is of little use.
        assert!(
            refused * 10 < good,
            "{}: {refused} refused, {good} planned",
            path.display()
        );
    }
}

#[test]
fn every_function_of_the_compilers_driver() {
    let sysroot = std::process::Command::new("rustc")
        .args(["--print", "sysroot"])
        .output()
        .unwrap();
    let lib = Path::new(String::from_utf8_lossy(&sysroot.stdout).trim()).join("lib");
    let mut checked = 0;
    for entry in std::fs::read_dir(lib).unwrap().flatten() {
        let name = entry.file_name();
        if name.to_string_lossy().starts_with("librustc_driver") {
            checked += check_file(&entry.path()).0;
        }
    }
    assert!(checked > 10_000, "{checked}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]
    #[test]
    fn nonsense_never_panics_and_what_is_planned_holds(bytes in proptest::collection::vec(any::<u8>(), 1..80)) {
        if let Ok(code) = Code::decode(&[CodePart { address: 0x1000, bytes }])
            && let Ok(plan) = plan(&code, &context(ReturnProbe::Never))
        {
            check(&code, &plan, &|_, _| None);
        }
    }

    /// Nonsense made of instructions that matter to the planner.
    #[test]
    fn likely_code_never_panics_and_what_is_planned_holds(pieces in proptest::collection::vec(0usize..16, 1..24)) {
        const PIECES: [&[u8]; 16] = [
            &[0xf3, 0x0f, 0x1e, 0xfa], &[0x55], &[0x48, 0x89, 0xe5], &[0x5d], &[0xc9], &[0xc3],
            &[0x90], &[0x0f, 0x1f, 0x44, 0, 0], &[0x74, 0x02], &[0xeb, 0xfc], &[0x75, 0xf8],
            &[0xe8, 0, 0, 0, 0], &[0x48, 0x83, 0xec, 8], &[0x48, 0x83, 0xc4, 8], &[0xe9, 0, 0x10, 0, 0],
            &[0x0f, 0x84, 0, 0x10, 0, 0],
        ];
        let bytes: Vec<u8> = pieces.iter().flat_map(|piece| PIECES[*piece]).copied().collect();
        if let Ok(code) = Code::decode(&[CodePart { address: 0x1000, bytes }])
            && let Ok(plan) = plan(&code, &context(ReturnProbe::Never))
        {
            check(&code, &plan, &|_, _| None);
        }
    }
}
