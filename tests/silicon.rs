//! What silicon needs and QEMU does not: each place that owes the hardware a barrier, a cache or a TLB operation, why, and
//! who notices when it is left out.
//!
//! [`TABLE`] is the list, with the section of the Arm ARM (DDI 0487) that each reason is from. What library code asks of
//! its machine is played on the model ([`harness::model`]), which delays stores, remembers translations and distrusts
//! caches; the tests named in the table fail there. What only stands in assembly and beside it no host can
//! run: its text is read instead, and the operations must stand there in this order. For the switch from one VM's
//! translation regime to another's that would not be enough: [`switch`] plays the register writes that the text makes on
//! a CPU that lets them take effect in any order between two context synchronization events.

use harness::source::root;
use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// Who notices that an operation is missing.
enum Seen {
    /// The text is read: these stand in it, in this order.
    Text(&'static [&'static str]),
    /// These tests on the model machine fail.
    Model(&'static [&'static str]),
}

/// A place that owes the hardware something.
struct Place {
    /// Below `hypervisor/src/`.
    file: &'static str,
    /// The line that the place begins with; it ends with the next line that closes it, at the same depth.
    from: &'static str,
    /// What could happen without.
    why: &'static str,
    /// Where the Arm ARM says so; an erratum by its number.
    section: &'static str,
    seen: Seen,
}

use Seen::{Model, Text};

const TABLE: &[Place] = &[
    Place {
        file: "el2/boot.S",
        from: "invalidate:",
        why: "stores with the MMU off are not ordered with maintenance of their lines: a line that speculation brought \
              in could be dropped before and filled again from what memory held",
        section: "D7.5.9 (ordering of data cache instructions), B2.3.12",
        seen: Text(&["dmb sy", "dc ivac", "dsb sy", "ret"]),
    },
    Place {
        file: "el2/boot.S",
        from: "mmu_on:",
        why: "translations and instructions of an earlier life of the board",
        section: "D8.17, D7.5.9",
        seen: Text(&[
            "msr ttbr0_el2",
            "isb",
            "tlbi alle2",
            "ic iallu",
            "dsb nsh",
            "isb",
            "msr sctlr_el2",
            "isb",
            "br x3",
        ]),
    },
    Place {
        file: "el2/smp.rs",
        from: "fn clean(",
        why: "a CPU that starts reads its stack's address with its caches off",
        section: "D7.5.9, B2.8",
        seen: Text(&["dc civac", "dsb();"]),
    },
    Place {
        file: "el2/context.rs",
        from: "pub(crate) fn unload(",
        why: "TLB and cache maintenance and stores that the vCPU has not waited for: it may wait for them on another CPU, \
              whose DSB knows nothing of this one's",
        section: "B2.3.12 (DSB: what the PE that executes it has issued), D8.17.5",
        seen: Text(&["no_walks();", "dsb(barrier::ISH)"]),
    },
    Place {
        file: "el2/vectors.S",
        from: "drain_serrors:",
        why: "an SError of an access that a guest has made may still be on its way, and would be taken from who runs next",
        section: "D1.3.2, B2.3.12; ISR_EL1 may be read out of turn",
        seen: Text(&["dsb sy", "isb", "mrs x0, isr_el1", "msr daifclr, #4", "isb", "msr daifset, #4", "ret"]),
    },
    Place {
        file: "el2/vectors.S",
        from: ".macro own_serror",
        why: "the SError that is drained goes no further, and one window takes one; nothing is speculated behind the ERET",
        section: "D1.3.2, D1.4.3",
        seen: Text(&["elr_el2", "serror_window", "b.hi", "spsr_el2", "#(1 << 8)", "msr spsr_el2", "eret"]),
    },
    Place {
        file: "el2/vectors.S",
        from: "left_guest:",
        why: "what a guest has taught the branch predictors would guide EL2's first indirect branch, and the next guest",
        section: "DEN0028 7.5, 7.9; Cortex-A72: no CSV2",
        seen: Text(&["tpidr_el2", "BLOCK_GUARD", "cbnz x2, guard", "guarded:", "ret"]),
    },
    Place {
        file: "el2/vectors.S",
        from: "guard:",
        why: "history counts until the branches that overwrite it are done; the firmware may change x0 to x17",
        section: "Arm, Spectre-BHB 1.7; B2.3.12",
        seen: Text(&[
            "mov x19, x1",
            "b . + 4",
            "b.ne 1b",
            "dsb nsh",
            "isb",
            "hint #22",
            "isb",
            "smc #0",
            "x1, x19",
            "b guarded",
        ]),
    },
    Place {
        file: "run/switch.rs",
        from: "fn unload<",
        why: "who did it is charged with it, before its registers and its name are gone",
        section: "D1.3.2",
        seen: Text(&["m.drain_serrors()", "SERROR", "m.save_context(", "m.be_nobody();", "drop(loaded.vcpu);"]),
    },
    Place {
        file: "run/switch.rs",
        from: "fn load<",
        why: "what EL2 did between two vCPUs is not the fault of the second",
        section: "D1.3.2",
        seen: Text(&["self.unload(m);", "m.drain_serrors()", "m.load_context("]),
    },
    Place {
        file: "el2/context.rs",
        from: "pub(crate) fn forget_stage1(",
        why: "vCPUs of one VM share its VMID, not their stage 1",
        section: "D8.16, D8.17",
        seen: Text(&["dsb nshst", "tlbi vmalle1", "dsb nsh", "isb"]),
    },
    Place {
        file: "el2/machine.rs",
        from: "fn publish(",
        why: "a walk that sees the descriptor before it sees what it points to",
        section: "D8.2.6",
        seen: Text(&["dsb(barrier::ISHST)", "isb();"]),
    },
    Place {
        file: "stage2/map.rs",
        from: "//!",
        why: "the same, where the library asks for it; and break-before-make",
        section: "D8.2.6, D8.16.1",
        seen: Model(&["seeded_bugs_are_found"]),
    },
    Place {
        file: "frames.rs",
        from: "//!",
        why: "a vCPU on another CPU may see the leaf before it sees what the frame was filled with",
        section: "B2.3 (stores to different locations have no order of their own), D8.2.6",
        seen: Model(&[
            "no_guest_sees_what_another_wrote_and_nothing_is_lost",
            "seeded_bugs_are_found_from_here_as_well",
        ]),
    },
    Place {
        file: "stage2/vmid.rs",
        from: "//!",
        why: "a number that is lent anew finds what its last owner's tables said",
        section: "D8.14, D8.17",
        seen: Model(&["eight_bits_roll_over_without_mixing_guests", "a_roll_over_that_forgets_nothing_is_found"]),
    },
    Place {
        file: "el2/machine.rs",
        from: "Forget::Leaf(vmid, ipa, size) =>",
        why: "stage-2 entries are found by IPA, combined ones only by their VMID, once the first are gone",
        section: "D8.17.5, D8.14.5",
        seen: Text(&["ipas2e1is", "dsb(barrier::ISH)", "vmalle1is", "dsb(barrier::ISH)", "isb();"]),
    },
    Place {
        file: "el2/machine.rs",
        from: "fn under(",
        why: "TLB maintenance applies to the current VMID, once stores to the tables are done",
        section: "D8.17, Cortex-A72 erratum 1319367",
        seen: Text(&[
            "dsb(barrier::ISHST)",
            "no_walks();",
            "vttbr_el2",
            "isb();",
            "work();",
            "vttbr_el2",
            "allow_walks(",
        ]),
    },
    Place {
        file: "el2/machine.rs",
        from: "Forget::All =>",
        why: "a number that is lent anew: instruction caches may be tagged by it",
        section: "D7.5.9, D8.17",
        seen: Text(&["dsb(barrier::ISHST)", "tlbi alle1is", "ic ialluis", "dsb(barrier::ISH)", "isb();"]),
    },
    Place {
        file: "el2/machine.rs",
        from: "fn clean(",
        why: "bytes that a guest with caches off, or an instruction fetch, would not see",
        section: "B2.7.4, D7.5.9",
        seen: Text(&[
            "Line::Clean,",
            "Line::CleanForFetch,",
            "each_line(",
            "dsb();",
            "self.invalidate_instructions();",
        ]),
    },
    Place {
        file: "el2/machine.rs",
        from: "fn invalidate_instructions(",
        why: "instructions that a frame's last owner left in an instruction cache",
        section: "B2.7.4, D7.5.9",
        seen: Text(&["ic ialluis", "dsb();", "isb();"]),
    },
    Place {
        file: "memory/fault.rs",
        from: "fn let_fetch",
        why: "the same, where the library asks for it: before a guest may first fetch from a frame",
        section: "B2.7.4, D7.5.9",
        seen: Model(&["no_guest_sees_what_another_wrote_and_nothing_is_lost"]),
    },
    Place {
        file: "memory/change.rs",
        from: "pub fn map_rom",
        why: "flash that was programmed through caches, and is read past them or run",
        section: "B2.7.4, B2.8",
        seen: Model(&["a_guest_reads_it_as_memory_until_it_writes"]),
    },
    Place {
        file: "memory/fault.rs",
        from: "//!",
        why: "the same, where the library asks for it: zeroes in DRAM before a guest with caches off looks there",
        section: "B2.8, D8.6",
        seen: Model(&["an_image_is_there_with_caches_off"]),
    },
    Place {
        file: "exit/cache.rs",
        from: "//!",
        why: "maintenance by set and way reaches one CPU's caches, and the vCPU may have dirtied another's",
        section: "D7.5.9, D24.2.52 (HCR_EL2.TSW)",
        seen: Model(&["a_loop_over_sets_and_ways_empties_the_caches", "a_loop_of_a_handler_in_between_is_whole"]),
    },
    Place {
        file: "el2/machine.rs",
        from: "fn probe(",
        why: "PAR_EL1 holds what AT found only after a context synchronization event",
        section: "D8.15 (AT), K1.1",
        seen: Text(&["at s1e1w", "isb();", "El1::Par"]),
    },
    Place {
        file: "el2/machine.rs",
        from: "fn now(",
        why: "the counter may be read ahead of what stands before it",
        section: "D12.2.2",
        seen: Text(&["isb();", "cntpct_el0"]),
    },
    Place {
        file: "el2/cpu.rs",
        from: "pub(crate) fn init(",
        why: "VTTBR_EL2 is UNKNOWN out of reset, and a speculative AT walks from it once HCR_EL2.VM is set",
        section: "D1.9 (reset), Cortex-A72 erratum 1319367",
        seen: Text(&["no_walks();", "vttbr_el2\", 0", "isb();", "hcr_el2\", hcr", "isb();", "tlbi alle1"]),
    },
];

fn read(file: &str) -> String {
    fs::read_to_string(root().join("hypervisor/src").join(file)).unwrap_or_else(|why| panic!("{file}: {why}"))
}

/// `text` without comments, and with one space where there is more white space.
fn bare(text: &str) -> Vec<String> {
    let code = text.lines().map(|line| line.split("//").next().unwrap_or(""));
    code.map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).filter(|line| !line.is_empty()).collect()
}

/// The part of `text` from the line that has `from` in it to the line that ends it: for Rust the next that closes
/// something at the same depth, for assembly the next `ret` or `br`.
fn part(text: &str, from: &str, is_rust: bool) -> Option<String> {
    let lines: Vec<&str> = text.lines().collect();
    let first = lines.iter().position(|line| line.contains(from) && (is_rust || line.starts_with(from)))?;
    let depth = |line: &str| line.len() - line.trim_start().len();
    let ends = |line: &&&str| {
        let word = line.trim_start();
        if is_rust {
            word.starts_with('}') && depth(line) == depth(lines[first])
        } else {
            ["ret", "br ", "eret", "b       guarded"].iter().any(|end| word.starts_with(end))
        }
    };
    let length = lines[first + 1..].iter().position(|line| ends(&line))? + 2;
    Some(lines[first..first + length].join("\n"))
}

/// The first of `steps` that does not stand in `text` behind those before it.
fn missing<'a>(text: &str, steps: &[&'a str]) -> Option<&'a str> {
    let text = bare(text).join("\n");
    let mut rest = text.as_str();
    steps.iter().copied().find(|step| match rest.find(step) {
        Some(at) => {
            rest = &rest[at + step.len()..];
            false
        }
        None => true,
    })
}

#[test]
fn every_place_does_what_it_owes_in_order() {
    let mut wrong = Vec::new();
    for Place { file, from, why, section, seen } in TABLE {
        let Text(steps) = seen else { continue };
        match part(&read(file), from, file.ends_with(".rs")) {
            None => wrong.push(format!("{file}: `{from}` is not there any more")),
            Some(text) => {
                if let Some(step) = missing(&text, steps) {
                    wrong.push(format!("{file}: `{from}`: `{step}` is missing or out of order ({section}): {why}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn a_step_left_out_is_missed() {
    for Place { file, from, seen, .. } in TABLE {
        let Text(steps) = seen else { continue };
        let text = part(&read(file), from, file.ends_with(".rs")).expect("the place");
        for step in *steps {
            let text = bare(&text).join("\n");
            // All of them: a step may stand there twice.
            assert!(missing(&text.replace(step, ""), steps).is_some(), "{file}: `{from}` without `{step}`");
        }
    }
}

#[test]
fn the_tests_that_the_table_names_are_there() {
    let mut tests = String::new();
    for under in ["tests/properties", "tests/src", "hypervisor/src"] {
        gather(&root().join(under), &mut tests);
    }
    for place in TABLE {
        let Model(names) = place.seen else { continue };
        for name in names {
            assert!(tests.contains(&format!("fn {name}(")), "{}: no test is called {name}", place.file);
        }
    }
}

fn gather(under: &Path, text: &mut String) {
    for entry in fs::read_dir(under).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            gather(&path, text);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            text.push_str(&fs::read_to_string(path).expect("text"));
        }
    }
}

/// From one translation regime to another (Cortex-A72 erratum 1319367, A57 1319537): an AT or a walk that the CPU makes
/// out of turn uses whatever is in the registers at that moment, and keeps what it finds under the VMID of that moment.
mod switch {
    use super::{BTreeMap, bare, part, read};

    /// A register's value, as far as it matters.
    #[derive(Clone, Copy, PartialEq, Eq, Debug)]
    enum Value {
        /// As the vCPU of this number has it.
        Of(u32),
        /// Such that stage 1 is on (SCTLR_EL1.M), or is not walked (TCR_EL1.EPD0 and EPD1), whoever's the rest is.
        Safe,
        /// Nobody's: VTTBR_EL2 zero.
        Nobody,
        /// Another VM's, for its TLB maintenance.
        Borrowed,
    }

    /// What a walk reads.
    const REGISTERS: [&str; 7] =
        ["tcr_el1", "sctlr_el1", "ttbr0_el1", "ttbr1_el1", "mair_el1", "vtcr_el2", "vttbr_el2"];

    /// A CPU on which writes of system registers take effect at any moment up to the next ISB, in any order (Arm ARM
    /// D24.1.2.2).
    #[derive(Clone)]
    pub(super) struct Cpu {
        settled: BTreeMap<&'static str, Value>,
        pending: Vec<(&'static str, Value)>,
        pub(super) wrong: Vec<String>,
    }

    impl Cpu {
        /// On which vCPU 1 runs.
        fn running() -> Self {
            let settled = REGISTERS.map(|name| (name, Value::Of(1))).into();
            Self { settled, pending: Vec::new(), wrong: Vec::new() }
        }

        fn write(&mut self, name: &str, value: Value) {
            let Some(name) = REGISTERS.into_iter().find(|known| *known == name) else { return };
            self.pending.push((name, value));
            // Each subset of what is under way may be there already, if later writes of a register come after earlier.
            for some in 0..1_u32 << self.pending.len() {
                let mut seen = self.settled.clone();
                for (_, (name, value)) in self.pending.iter().enumerate().filter(|(n, _)| some >> n & 1 != 0) {
                    seen.insert(name, *value);
                }
                if let Some(why) = Self::harm(&seen) {
                    self.wrong.push(why);
                    return;
                }
            }
        }

        fn isb(&mut self) {
            for (name, value) in self.pending.drain(..) {
                self.settled.insert(name, value);
            }
        }

        /// Whether a walk now would find something that belongs to nobody alone.
        fn harm(seen: &BTreeMap<&str, Value>) -> Option<String> {
            let of = |name| seen[name];
            let matter = match (of("sctlr_el1"), of("tcr_el1")) {
                // With stage 1 on and no walks of it, nothing is translated that is not in a TLB already.
                (Value::Safe, Value::Safe) => return None,
                // On, whatever its owner wants, and walked by tables that may be none.
                (Value::Safe, _) => return Some(format!("stage 1 is walked though it may be off: {seen:?}")),
                // Perhaps off, and if on not walked: an address is its own IPA.
                (_, Value::Safe) => &["sctlr_el1", "vtcr_el2", "vttbr_el2"][..],
                _ => &REGISTERS,
            };
            let first = of(matter[0]);
            let mixed = matter.iter().any(|name| of(name) != first);
            mixed.then(|| format!("a walk may use {seen:?}"))
        }
    }

    /// Plays what `function` of `file` does to the registers, those of the functions that it calls included.
    fn play(cpu: &mut Cpu, file: &str, function: &str, vcpu: u32) {
        let text =
            part(&read(file), &format!("fn {function}("), true).unwrap_or_else(|| panic!("{file}: no {function}"));
        for line in bare(&text) {
            if let Some(write) = line.split("write!(\"").nth(1) {
                let (name, value) = write.split_once('"').expect("a name");
                let safe = value.contains("NO_WALKS") || name == "sctlr_el1" && value.contains("| 1");
                let value = match (safe, value.contains(", 0)")) {
                    (true, _) => Value::Safe,
                    (_, true) => Value::Nobody,
                    _ if value.contains("vmid << 48") => Value::Borrowed,
                    _ => Value::Of(vcpu),
                };
                cpu.write(name, value);
            } else if line == "isb();" {
                cpu.isb();
            } else if line.starts_with("no_walks(") || line.starts_with("context::no_walks(") {
                play(cpu, "el2/context.rs", "no_walks", vcpu);
            } else if line.starts_with("allow_walks(") || line.starts_with("context::allow_walks(") {
                play(cpu, "el2/context.rs", "allow_walks", vcpu);
            } else if line.starts_with("restore(") {
                for name in ["ttbr0_el1", "ttbr1_el1", "mair_el1"] {
                    cpu.write(name, Value::Of(vcpu));
                }
            }
        }
    }

    fn check(what: &[(&str, &str, u32)]) -> Vec<String> {
        let mut cpu = Cpu::running();
        for (file, function, vcpu) in what {
            play(&mut cpu, file, function, *vcpu);
        }
        cpu.wrong
    }

    #[test]
    fn no_walk_mixes_two_vcpus() {
        let (load, unload) = (("el2/context.rs", "load", 2), ("el2/context.rs", "unload", 0));
        // One after the other; one for the other, as two parts of one vCPU change; a borrowed VMID for TLB maintenance.
        for what in [&[unload, load][..], &[load], &[unload], &[("el2/machine.rs", "under", 1)]] {
            assert_eq!(check(what), [""; 0], "{what:?}");
        }
    }

    #[test]
    fn the_cpu_notices_what_is_left_out() {
        // TCR's and SCTLR's writes at once, as nothing in between orders them.
        let mut cpu = Cpu::running();
        cpu.write("tcr_el1", Value::Safe);
        cpu.write("sctlr_el1", Value::Safe);
        cpu.isb();
        assert_ne!(cpu.wrong, [""; 0], "stage 1 may be on before its walks are off");
        let mut cpu = Cpu::running();
        for name in ["tcr_el1", "sctlr_el1"] {
            cpu.write(name, Value::Safe);
            cpu.isb();
        }
        assert_eq!(cpu.wrong, [""; 0]);
        cpu.write("vttbr_el2", Value::Of(2));
        assert_eq!(cpu.wrong, [""; 0]);
        cpu.write("sctlr_el1", Value::Of(2));
        assert_ne!(cpu.wrong, [""; 0], "an ISB before stage 1 is its own again");
    }
}
