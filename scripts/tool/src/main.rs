//! The host side of Flatland's scripts, where there is more to do than a shell should.
//!
//! One subcommand each: `bundle` and `check` and `tree` (bundle.rs), `image` and `symbols` (elf.rs), `simulate`
//! (simulate.rs), `plot` (plot.rs). Everything that is said about a bundle comes from the hypervisor's own parser, so that
//! what passes here passes at boot; memory is simulated with the hypervisor's own policy.
//!
//! Exit status: 0 done, 1 it could not be done, 2 the command line is wrong.

mod arguments;
mod bundle;
mod demangle;
mod elf;
mod plot;
mod simulate;

use std::process::ExitCode;

const HELP: &str = "\
Usage: tool COMMAND ...

  bundle MANIFEST.dts -o FILE [-I DIR]...   make a bundle
  check BUNDLE                              say what is in a bundle, or what is wrong with it
  tree BUNDLE VM -o FILE [--gic 2|3]        write the device tree that a VM of a bundle is handed
  image ELF OUT                             flatten an ELF file's segments to what lies in memory
  symbols ELF < LOG                         name the addresses in a hypervisor's backtrace
  simulate TRACE [--tax N] [--svg FILE]     try the memory policy on simulated guests
  plot LOG [-o FILE] [--trace FILE]         draw memory over time

tool COMMAND --help says more.
";

const BUNDLE_HELP: &str = "\
Usage: tool bundle MANIFEST.dts -o FILE [-I DIR]...

Compiles the manifest with dtc, gathers the images it names, and packs all into FILE, which is written only if nothing
is wrong: every error in the manifest is reported, and every image is tried as at boot. The same input makes the same
bytes.

  -o FILE   the bundle to write
  -I DIR    where to look for images that are not beside the manifest; may be given several times

A manifest:

  /dts-v1/;
  / {
      compatible = \"flatland,bundle-1\";
      vms {
          alpha {                             // 1 to 15 of a to z, 0 to 9 and -
              memory = \"128M\";                // required: a multiple of 2M
              kernel = \"Image\";               // required: Linux Image, ELF or flat binary, gzip or not
              initrd = \"initrd.gz\";
              bootargs = \"console=ttyAMA0\";
              vcpus = <2>;                    // default 1
              shares = <1000>;                // default 1000
              on-crash = \"stop\";              // \"stop\" (default), \"restart\" or \"dump\"
              affinity = <0 1>;               // default: any CPU
              watchdog-seconds = <10>;        // default: none
              granule = \"4K\";                 // default: \"2M\"
              min = \"32M\";                    // default: all of its memory
              domain = \"lab\";                 // default: it shares pages with no other VM
              nested;                         // default: not; it starts at EL2, to be a hypervisor itself
          };
      };
      policy {                                // may be left out
          pool = \"448M\";                      // default: all there is
          idle-tax = <75>; cow-risk = <10>; scan-cpu = <50>;    // percent; these are the defaults
      };
  };
";

const CHECK_HELP: &str = "\
Usage: tool check BUNDLE

Opens the bundle as the hypervisor does, unpacks every image, and says for each VM what goes where.
";

const TREE_HELP: &str = "\
Usage: tool tree BUNDLE VM -o FILE [--gic 2|3]

Writes the device tree (DTB) that the VM of this name is handed, for a board with this GIC (default 3).
";

const IMAGE_HELP: &str = "\
Usage: tool image ELF OUT

Writes the loadable segments of ELF to OUT as they lie in physical memory, from the lowest address on; gaps are zeroes.
";

const SYMBOLS_HELP: &str = "\
Usage: tool symbols ELF < LOG

Copies LOG to standard output. In lines that contain `backtrace`, each address (0x...) within ELF's code is followed by
the name of its function and the offset in it.
";

const SIMULATE_HELP: &str = "\
Usage: tool simulate TRACE [--tax N] [--svg FILE]

Plays a trace of working sets against the hypervisor's memory policy, on simulated guests. Prints a line per second (what
is free, and for each VM what it has, its balloon, what it is entitled to, how much of it is active, its speed and the
pages it waited for), and a summary.

  --tax N      the tax on idle memory in percent (default 75)
  --svg FILE   draw it, too

A trace:

  board 512M                              # pages, or bytes with K, M or G
  vm one 384M 64M 1000                    # name, max, min, shares; dead-balloon or no-balloon
  vm two 384M 64M 1000 dead-balloon
  0 one touches 300M working-set          # from this second on, so much of its memory is in use
  600 end
";

const PLOT_HELP: &str = "\
Usage: tool plot LOG [-o FILE.svg] [--trace FILE.json]

Reads the lines of LOG in which Flatland says what memory is used for, and draws it over time.

  -o FILE.svg         the picture (default: LOG.svg, its ending replaced, unless there is a --trace)
  --trace FILE.json   the same figures as counters for a trace viewer (Perfetto, chrome://tracing)

The lines, in KiB; other keys and other lines do no harm:

  flatland: stats t=SECONDS board level=WORD total=N hypervisor=N reserved=N tables=N images=N store=N shared=N private=N free=N
  flatland: stats t=SECONDS vm=NAME configured=N private=N
";

/// What went wrong.
enum Failure {
    /// The command line: status 2.
    Usage(String),
    /// The work: status 1.
    Work(String),
}

/// A command.
type Run = fn(arguments::Arguments) -> Result<(), Failure>;

impl From<String> for Failure {
    fn from(text: String) -> Self {
        Self::Work(text)
    }
}

fn main() -> ExitCode {
    let mut words = std::env::args_os().skip(1);
    let Some(command) = words.next() else {
        eprint!("{HELP}");
        return ExitCode::from(2);
    };
    let (help, run): (_, Run) = match command.to_str() {
        Some("bundle") => (BUNDLE_HELP, bundle::make),
        Some("check") => (CHECK_HELP, bundle::check),
        Some("tree") => (TREE_HELP, bundle::tree),
        Some("image") => (IMAGE_HELP, elf::image),
        Some("symbols") => (SYMBOLS_HELP, elf::symbols),
        Some("simulate") => (SIMULATE_HELP, simulate::run),
        Some("plot") => (PLOT_HELP, plot::plot),
        Some("-h" | "--help" | "help") => {
            print!("{HELP}");
            return ExitCode::SUCCESS;
        }
        _ => {
            eprint!("tool: there is no command {}\n\n{HELP}", command.display());
            return ExitCode::from(2);
        }
    };
    // A script that stands for a command goes by its own name.
    let plain = format!("tool {}", command.display());
    let name = std::env::var("FLATLAND_SCRIPT").unwrap_or_else(|_| plain.clone());
    let help = help.replace(&plain, &name);
    let words: Vec<_> = words.collect();
    if words.iter().take_while(|word| *word != "--").any(|word| word == "-h" || word == "--help") {
        print!("{help}");
        return ExitCode::SUCCESS;
    }
    match run(arguments::Arguments::new(words)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(Failure::Usage(text)) => {
            let usage = help.lines().next().unwrap_or_default();
            eprintln!("{name}: {text}\n{usage}");
            ExitCode::from(2)
        }
        Err(Failure::Work(text)) => {
            eprintln!("{}", text.trim_end());
            ExitCode::FAILURE
        }
    }
}
