//! The picture: what the board's RAM holds, stacked, below what VMs believe to have.
//!
//! From the bottom: the hypervisor and its tables, images, the store of compressed pages, pages that several share, what
//! each VM has to itself, and what is free. What is configured for VMs is a line, which may lie above the board's RAM;
//! how short memory is shows below the axis.

use super::{History, Sample};
use std::fmt::Write;

/// The size of the picture.
const SIZE: (f64, f64) = (1200.0, 700.0);
/// Where the axes begin and end.
const LEFT: f64 = 84.0;
const RIGHT: f64 = 960.0;
const TOP: f64 = 76.0;
const BOTTOM: f64 = 596.0;
/// The strip that shows the level.
const STRIP: (f64, f64) = (BOTTOM + 5.0, 15.0);
/// Where the legend begins.
const LEGEND: f64 = RIGHT + 24.0;
/// A row of the legend.
const ROW: f64 = 20.0;
/// The steps of the axis of time, in seconds.
const SECONDS: [f64; 16] =
    [0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 15.0, 30.0, 60.0, 120.0, 300.0, 600.0, 1800.0, 3600.0, 36000.0];
/// VMs, one after another; light where they come round again.
const VMS: [&str; 16] = [
    "#4e79a7", "#f28e2b", "#59a14f", "#e15759", "#76b7b2", "#b07aa1", "#9c755f", "#ff9da7", "#a0bcd9", "#fbd0a2",
    "#a8d3a1", "#f2b0b0", "#bfe0dd", "#dcc3d4", "#cfb8aa", "#ffd3d8",
];
/// The line of what is configured.
const CONFIGURED: &str = "#c0392b";
/// What the lines are called by, whatever crosses it.
const LOUD: &str = "font-weight=\"bold\" paint-order=\"stroke\" stroke=\"white\" stroke-width=\"3\"";

/// One thing that RAM holds.
struct Band {
    label: String,
    colour: &'static str,
    /// In MiB, for each sample.
    heights: Vec<f64>,
}

impl Band {
    fn new(history: &History, label: &str, colour: &'static str, kib: impl Fn(&Sample) -> u64) -> Self {
        Self { label: label.into(), colour, heights: history.samples.iter().map(|sample| mib(kib(sample))).collect() }
    }

    fn peak(&self) -> f64 {
        self.heights.iter().copied().fold(0.0, f64::max)
    }
}

/// Where times and amounts lie in the picture.
struct Scale {
    start: f64,
    end: f64,
    most: f64,
}

impl Scale {
    fn x(&self, time: f64) -> f64 {
        LEFT + (time - self.start) / (self.end - self.start).max(0.001) * (RIGHT - LEFT)
    }

    fn y(&self, mib: f64) -> f64 {
        BOTTOM - mib / self.most * (BOTTOM - TOP)
    }
}

/// The whole file; `name` is that of the log.
pub(super) fn draw(history: &History, name: &str) -> String {
    let bands = bands(history);
    let peak = |of: &dyn Fn(&Sample) -> u64| mib(history.samples.iter().map(of).max().unwrap_or(0));
    let ram = peak(&|sample| sample.board("total"));
    let configured = peak(&|sample| sample.all_vms("configured"));
    let held = (0..history.samples.len()).map(|n| bands.iter().map(|band| band.heights[n]).sum()).fold(0.0, f64::max);
    let times = history.samples.iter().map(|sample| sample.time);
    let scale = Scale {
        start: times.clone().fold(f64::MAX, f64::min),
        end: times.fold(f64::MIN, f64::max),
        most: ram.max(configured).max(held).max(1.0) * 1.08,
    };
    let (width, height) = SIZE;
    let mut out = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{width}\" height=\"{height}\" viewBox=\"0 0 {width} {height}\" \
         font-family=\"Helvetica, Arial, DejaVu Sans, sans-serif\" font-size=\"13\">\n\
         <rect width=\"{width}\" height=\"{height}\" fill=\"white\"/>\n"
    );
    text(&mut out, (LEFT, 34.0), "font-size=\"20\" font-weight=\"bold\"", "Memory of the board");
    let n_vms = history.vms.len();
    let about = format!("{name}: {n_vms} VMs with {configured:.0} MiB, a board with {ram:.0} MiB");
    text(&mut out, (LEFT, 55.0), "fill=\"#555\"", &about);
    axes(&mut out, &scale);
    stack(&mut out, &scale, history, &bands);
    lines(&mut out, &scale, history, ram, configured);
    levels(&mut out, &scale, history);
    legend(&mut out, &bands, configured > 0.0);
    out + "</svg>\n"
}

/// What RAM holds, from the bottom; what is never there is left out.
fn bands(history: &History) -> Vec<Band> {
    let board = |label, colour, name: &'static str| Band::new(history, label, colour, move |sample| sample.board(name));
    let mut bands = vec![
        board("hypervisor", "#333333", "hypervisor"),
        board("reserved", "#777777", "reserved"),
        board("tables", "#888888", "tables"),
        board("images", "#bab0ac", "images"),
        board("store", "#6b4c9a", "store"),
        board("shared", "#edc948", "shared"),
    ];
    for (vm, name) in history.vms.iter().enumerate() {
        bands.push(Band::new(history, name, VMS[vm % VMS.len()], |sample| sample.vm(vm, "private")));
    }
    // What the board counts as private, and no VM has.
    let private = |sample: &Sample| sample.board("private").saturating_sub(sample.all_vms("private"));
    bands.push(Band::new(history, "of no VM", "#cccccc", private));
    bands.push(board("free", "#eaf1f7", "free"));
    let total = history.samples.iter().map(|sample| mib(sample.board("total"))).fold(0.0, f64::max);
    // Figures that are not taken at one moment may differ a little.
    bands.retain(|band| band.peak() > 0.0 && (band.label != "of no VM" || band.peak() > total / 100.0));
    bands
}

fn axes(out: &mut String, scale: &Scale) {
    let mut step = 1.0;
    while scale.most / step > 10.0 {
        step *= 2.0;
    }
    for mib in (0..).map(|n| f64::from(n) * step).take_while(|mib| *mib <= scale.most) {
        let y = scale.y(mib);
        line(out, (LEFT, y), (RIGHT, y), "stroke=\"#dddddd\"");
        text(out, (LEFT - 8.0, y + 4.5), "text-anchor=\"end\"", &format!("{mib}"));
    }
    let fits = |step: &f64| (scale.end - scale.start) / step <= 14.0;
    let step = SECONDS.into_iter().find(fits).unwrap_or((scale.end - scale.start) / 10.0);
    let first = (scale.start / step).ceil();
    let y = STRIP.0 + STRIP.1;
    for time in (0..).map(|n| (first + f64::from(n)) * step).take_while(|time| *time <= scale.end + 1e-6) {
        line(out, (scale.x(time), y), (scale.x(time), y + 5.0), "stroke=\"#555\"");
        // A tenth of a second is the smallest step.
        let label = if step < 1.0 { format!("{time:.1}") } else { format!("{time:.0}") };
        text(out, (scale.x(time), y + 20.0), "text-anchor=\"middle\"", &label);
    }
    let middle = f64::midpoint(LEFT, RIGHT);
    text(out, (middle, y + 46.0), "text-anchor=\"middle\" fill=\"#333\"", "time since the board's start (s)");
    let middle = f64::midpoint(TOP, BOTTOM);
    let turned = format!("text-anchor=\"middle\" fill=\"#333\" transform=\"rotate(-90 24 {middle})\"");
    text(out, (24.0, middle), &turned, "memory (MiB)");
}

fn stack(out: &mut String, scale: &Scale, history: &History, bands: &[Band]) {
    let mut below = vec![0.0; history.samples.len()];
    let mut labels = String::new();
    for band in bands {
        let above: Vec<f64> = below.iter().zip(&band.heights).map(|(below, height)| below + height).collect();
        let points = |edge: &[f64]| -> Vec<String> {
            let points = history.samples.iter().zip(edge);
            points.map(|(sample, mib)| format!("{:.1},{:.1}", scale.x(sample.time), scale.y(*mib))).collect()
        };
        let mut around = points(&above);
        around.extend(points(&below).into_iter().rev());
        let _ = writeln!(
            out,
            "<polygon points=\"{}\" fill=\"{}\" stroke=\"white\" stroke-width=\"0.5\"><title>{}</title></polygon>",
            around.join(" "),
            band.colour,
            escape(&band.label)
        );
        label(&mut labels, scale, history, band, (&below, &above));
        below = above;
    }
    out.push_str(&labels);
    line(out, (LEFT, TOP), (LEFT, BOTTOM), "stroke=\"#555\"");
    line(out, (LEFT, BOTTOM), (RIGHT, BOTTOM), "stroke=\"#555\"");
}

/// Writes the name of a band where there is most room, if there is any.
fn label(out: &mut String, scale: &Scale, history: &History, band: &Band, (below, above): (&[f64], &[f64])) {
    // Half of what a name takes, and how many places are tried.
    let half = 4.0 + 3.5 * band.label.len() as f64;
    let places = 60;
    let mut best = (13.0, 0.0, 0.0);
    for place in 0..places {
        let x = LEFT + half + f64::from(place) / f64::from(places - 1) * (RIGHT - LEFT - 2.0 * half);
        // The samples below the name, and the next on both sides.
        let first = history.samples.partition_point(|sample| scale.x(sample.time) < x - half).saturating_sub(1);
        let last = history.samples.partition_point(|sample| scale.x(sample.time) <= x + half) + 1;
        let under = first..last.min(below.len());
        let floor = scale.y(below[under.clone()].iter().copied().fold(0.0, f64::max));
        let ceiling = scale.y(above[under].iter().copied().fold(f64::MAX, f64::min));
        if floor - ceiling > best.0 {
            best = (floor - ceiling, x, f64::midpoint(floor, ceiling));
        }
    }
    if let (room, x, y) = best
        && room > 13.0
    {
        let how = format!("text-anchor=\"middle\" font-size=\"12\" fill=\"{}\"", ink(band.colour));
        text(out, (x, y + 4.0), &how, &band.label);
    }
}

/// What can be read on a colour.
fn ink(colour: &str) -> &'static str {
    let part = |n: usize| colour.get(n..n + 2).and_then(|digits| u32::from_str_radix(digits, 16).ok()).unwrap_or(0);
    if part(1) * 3 + part(3) * 6 + part(5) > 1350 { "#222" } else { "white" }
}

/// The board's RAM, and what is configured, which changes in steps.
fn lines(out: &mut String, scale: &Scale, history: &History, ram: f64, configured: f64) {
    let y = scale.y(ram);
    line(out, (LEFT, y), (RIGHT, y), "stroke=\"black\" stroke-width=\"2\"");
    if configured > 0.0 {
        let mut path = String::new();
        for sample in &history.samples {
            let (x, y) = (scale.x(sample.time), scale.y(mib(sample.all_vms("configured"))));
            let _ = if path.is_empty() { write!(path, "M{x:.1},{y:.1}") } else { write!(path, " H{x:.1} V{y:.1}") };
        }
        let how = format!("fill=\"none\" stroke=\"{CONFIGURED}\" stroke-width=\"2\" stroke-dasharray=\"7 4\"");
        let _ = writeln!(out, "<path d=\"{path}\" {how}/>");
        let how = format!("{LOUD} fill=\"{CONFIGURED}\"");
        let what = format!("configured for VMs: {configured:.0} MiB");
        text(out, (LEFT + 8.0, scale.y(configured) - 6.0), &how, &what);
    }
    // On the other side, in case they lie close together.
    let how = format!("text-anchor=\"end\" {LOUD}");
    text(out, (RIGHT - 8.0, y - 6.0), &how, &format!("the board's RAM: {ram:.0} MiB"));
}

/// How short memory was, as a strip of segments.
fn levels(out: &mut String, scale: &Scale, history: &History) {
    if history.samples.iter().all(|sample| sample.level.is_empty()) {
        return;
    }
    let (y, height) = STRIP;
    text(out, (LEFT - 8.0, y + 12.0), "text-anchor=\"end\" fill=\"#333\"", "level");
    let mut rest = history.samples.as_slice();
    while let Some(first) = rest.first() {
        let n = rest.iter().take_while(|sample| sample.level == first.level).count();
        let from = scale.x(first.time);
        let to = rest.get(n).map_or(RIGHT, |next| scale.x(next.time));
        let colour = match first.level.as_str() {
            "high" => "#cfe8c9",
            "soft" => "#fbe7a1",
            "hard" => "#f5b971",
            "low" => "#e07b6a",
            _ => "#dddddd",
        };
        let width = (to - from).max(0.0);
        let _ = writeln!(
            out,
            "<rect x=\"{from:.1}\" y=\"{y}\" width=\"{width:.1}\" height=\"{height}\" fill=\"{colour}\">\
             <title>{}</title></rect>",
            escape(&first.level)
        );
        if width > 34.0 {
            let how = "text-anchor=\"middle\" font-size=\"11\" fill=\"#333\"";
            text(out, (f64::midpoint(from, to), y + 11.5), how, &first.level);
        }
        rest = &rest[n..];
    }
}

/// From the top, as they are stacked, with the most that each came to.
fn legend(out: &mut String, bands: &[Band], configured: bool) {
    let mut y = TOP + 8.0;
    text(out, (SIZE.0 - 20.0, y), "text-anchor=\"end\" font-size=\"11\" fill=\"#777\"", "at most, MiB");
    y += ROW;
    let lines = [(configured, CONFIGURED, "7 4", "configured"), (true, "black", "none", "RAM")];
    for (_, colour, dashes, label) in lines.into_iter().filter(|(there, ..)| *there) {
        let how = format!("stroke=\"{colour}\" stroke-width=\"2\" stroke-dasharray=\"{dashes}\"");
        line(out, (LEGEND, y - 4.0), (LEGEND + 18.0, y - 4.0), &how);
        text(out, (LEGEND + 26.0, y), "", label);
        y += ROW;
    }
    for band in bands.iter().rev() {
        let _ = writeln!(
            out,
            "<rect x=\"{LEGEND}\" y=\"{:.1}\" width=\"18\" height=\"13\" fill=\"{}\" stroke=\"#999\" stroke-width=\"0.5\"/>",
            y - 11.0,
            band.colour
        );
        text(out, (LEGEND + 26.0, y), "", &band.label);
        let peak = format!("{:.1}", band.peak());
        text(out, (SIZE.0 - 20.0, y), "text-anchor=\"end\" fill=\"#555\"", &peak);
        y += ROW;
    }
}

fn mib(kib: u64) -> f64 {
    // Amounts of memory are far below 2^53.
    kib as f64 / 1024.0
}

fn text(out: &mut String, (x, y): (f64, f64), how: &str, what: &str) {
    let _ = writeln!(out, "<text x=\"{x:.1}\" y=\"{y:.1}\" {how}>{}</text>", escape(what));
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64), how: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(out, "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" {how}/>");
}

/// A text as XML has it.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
