//! A small log, read, drawn and traced.

use super::{History, svg, trace};

/// Two VMs, one of which ends; a prompt, a guest that lies, lines cut short, in two orders.
const LOG: &str = "\
flatland: Flatland 0.1.0 on 2 CPUs, 512 MiB\r
flatland: stats t=1.000 board level=high total=524288 hypervisor=6144 free=312320 images=24576 shared=40960 store=8192 \
tables=2048 private=131072 more=soon\r
flatland: stats t=1.001 vm=alpha configured=131072 private=65536 shared=20480 balloon=16384\r
flatland: stats t=1.001 vm=beta configured=524288 private=65536 shared=20480 target=x\r
[alpha] flatland: stats t=1.5 vm=alpha configured=1 private=1\r
[beta] hello\r
flatland> \r\x1b[Kflatland: stats t=2.000 vm=alpha configured=131072 private=98304\r
flatland> \r\x1b[K\r\x1b[Kflatland: stats t=2.000 board level=soft total=524288 hypervisor=6144 free=419840 private=98304\r
flatland: stats t=3.000\r
flatland: stats t= board\r
flatland: stats t=nan board free=1\r
flatland: stats t=3.000 vm=\r
flatland: sta";

#[test]
fn a_log_is_read_whatever_stands_between() {
    let history = History::read(LOG);
    assert_eq!(history.vms, ["alpha", "beta"]);
    let [first, second] = history.samples.as_slice() else { panic!("{history:?}") };
    assert_eq!((first.time, first.level.as_str(), first.board("free")), (1.0, "high", 312_320));
    assert_eq!((first.vm(0, "balloon"), first.vm(1, "shared"), first.vm(1, "target")), (16384, 20480, 0));
    assert_eq!((first.all_vms("configured"), first.all_vms("private")), (655_360, 131_072));
    assert_eq!(
        (second.level.as_str(), second.vm(0, "private"), second.all_vms("configured")),
        ("soft", 98304, 131_072)
    );
}

#[test]
fn what_is_stacked_is_the_boards_ram() {
    let picture = svg::draw(&History::read(LOG), "a<b>.log");
    // 640 MiB and a margin are 520 high: 512 MiB of RAM end 144.4 below the top, at 76.
    assert!(picture.contains("x1=\"84.0\" y1=\"210.8\" x2=\"960.0\" y2=\"210.8\" stroke=\"black\""), "{picture}");
    let polygons: Vec<_> = picture.lines().filter(|line| line.starts_with("<polygon")).collect();
    let names: Vec<_> = polygons.iter().filter_map(|line| line.split("<title>").nth(1)?.split('<').next()).collect();
    assert_eq!(names, ["hypervisor", "tables", "images", "store", "shared", "alpha", "beta", "free"]);
    // The upper edge of what is free, and so of all, at both times; the second line leaves nothing out either.
    assert!(polygons.last().is_some_and(|line| line.contains("\"84.0,210.1 960.0,210.8 ")), "{polygons:?}");
    assert!(picture.contains(">configured for VMs: 640 MiB<") && picture.contains("a&lt;b&gt;.log"));
    assert!(picture.contains(">soft<") && picture.ends_with("</svg>\n"));
}

#[test]
fn a_trace_has_a_counter_for_each_figure() {
    let events = trace::write(&History::read(LOG));
    let lines: Vec<_> = events.lines().filter_map(|line| line.strip_prefix('{')).collect();
    let names = lines.iter().filter(|line| line.contains("\"ph\":\"M\"")).count();
    assert_eq!((lines.len() - 1, names), (3 + 9 + 3 + 3 + 2 + 4, 3));
    assert!(events.contains("{\"name\":\"balloon\",\"ph\":\"C\",\"ts\":1000000,\"pid\":1,\"args\":{\"KiB\":16384}}"));
    assert!(events.contains("{\"name\":\"process_name\",\"ph\":\"M\",\"pid\":2,\"args\":{\"name\":\"beta\"}}"));
}
