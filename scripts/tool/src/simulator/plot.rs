//! A simulation as a picture: [`svg`].

use super::{Second, Trace};
use std::fmt::Write;

/// The colours of VMs, in turn.
const COLOURS: [&str; 6] = ["#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#a16207", "#0f766e"];
/// The size of a panel, and of the room around it.
const WIDTH: u64 = 800;
const HEIGHT: u64 = 240;
const MARGIN: u64 = 60;

/// Draws what each VM had (above, as parts of the board), and how fast it was (below).
pub fn svg(trace: &Trace, seconds: &[Second]) -> String {
    let (width, height) = (WIDTH + 2 * MARGIN, 2 * HEIGHT + 3 * MARGIN);
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"13\">\n<rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    let mib = |pages: u64| format!("{} MiB", pages / 256);
    frame(&mut out, MARGIN, "machine memory", &mib(trace.board));
    frame(&mut out, HEIGHT + 2 * MARGIN, "speed", "100 %");
    line(&mut out, MARGIN, trace.board, "#9ca3af", seconds.iter().map(|second| second.free));
    for (i, (vm, colour)) in trace.vms.iter().zip(COLOURS.iter().cycle()).enumerate() {
        line(&mut out, MARGIN, trace.board, colour, seconds.iter().map(|second| second.vms[i].used));
        line(&mut out, HEIGHT + 2 * MARGIN, 1000, colour, seconds.iter().map(|second| second.vms[i].speed));
        legend(&mut out, i as u64, &vm.name, colour);
    }
    legend(&mut out, trace.vms.len() as u64, "free", "#9ca3af");
    let bottom = 2 * (HEIGHT + MARGIN) + 18;
    let _ = writeln!(out, "<text x=\"{}\" y=\"{bottom}\">{} s</text>\n</svg>", WIDTH + MARGIN - 20, seconds.len());
    out
}

fn legend(out: &mut String, place: u64, name: &str, colour: &str) {
    // A name is a word of a trace: it may hold anything but blanks.
    let name = name.replace('&', "&amp;").replace('<', "&lt;");
    let x = MARGIN + 110 * place;
    let _ = writeln!(out, "<text x=\"{x}\" y=\"20\" fill=\"{colour}\">{name}</text>");
}

fn frame(out: &mut String, top: u64, title: &str, most: &str) {
    let _ = writeln!(
        out,
        "<rect x=\"{MARGIN}\" y=\"{top}\" width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"none\" stroke=\"#d1d5db\"/>\n\
         <text x=\"{MARGIN}\" y=\"{}\">{title}, to {most}</text>",
        top - 6
    );
}

fn line(out: &mut String, top: u64, most: u64, colour: &str, values: impl ExactSizeIterator<Item = u64>) {
    let n = (values.len() as u64).max(2) - 1;
    out.push_str("<polyline points=\"");
    for (value, i) in values.zip(0..) {
        let (x, y) = (MARGIN + i * WIDTH / n, top + HEIGHT - value.min(most) * HEIGHT / most.max(1));
        let _ = write!(out, "{x},{y} ");
    }
    let _ = writeln!(out, "\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"1.5\"/>");
}
