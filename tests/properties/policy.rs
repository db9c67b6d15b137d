//! The memory policy: against ESX's own way of reaching the same end, against guests that lie, and on simulated boards.

use flatland::addr::VmId;
use flatland::policy::admit::{Demand, Scarce, admit};
use flatland::policy::targets::{Claim, entitle};
use flatland::policy::{Decision, Level, Levels, MOST_VMS, Pace, Policy, Settings, Vm};
use harness::effort;
use proptest::prelude::{Strategy, any, prop, prop_assert, prop_assert_eq, proptest};
use proptest::test_runner::Config;
use simulator::trace::{Change, Driver, Vm as Traced};
use simulator::{Second, Simulation, Trace, mean_speed, phases};

const MIB: u64 = 256;
/// The most pages that are told apart: 4 PiB.
const MOST: u64 = 1 << 40;

// --- Entitlements -------------------------------------------------------------------------------------------------------

fn claims(most: u64) -> impl Strategy<Value = Vec<Claim>> {
    let one = (0..most, 0..most, 1..5000_u32, 0..most, 0..4_u8);
    let one = one.prop_map(move |(a, b, shares, active, kind)| {
        let shares = if kind < 2 { shares } else { 1 + shares % 5 };
        let (min, max) = (a.min(b) / 4, a.max(b));
        // Some all active, some all idle.
        let active = [active, 0, most, active][usize::from(kind)];
        Claim { min, max, shares, active }
    });
    prop::collection::vec(one, 1..7)
}

fn entitled(claims: &[Claim], available: u64, tax: u8) -> Vec<u64> {
    let mut out = vec![0; claims.len()];
    entitle(claims, available, tax, &mut out);
    out
}

/// What a page of `claim` is worth to the board, the greater the less its owner pays: idle pages per share, as long as
/// those cost more than anything, and the cost of all per share.
fn price(claim: &Claim, pages: u64, tax: u8) -> (u128, u128) {
    let (active, idle) = (pages.min(claim.active), pages.saturating_sub(claim.active));
    let per_share = |cost: u64| (u128::from(cost) << 40) / u128::from(claim.shares);
    let kept = u64::from(100 - tax);
    if tax == 100 { (per_share(idle), per_share(active)) } else { (per_share(active * kept + idle * 100), 0) }
}

/// Min-funding revocation as it is told: page after page from whoever pays least.
fn revoked(claims: &[Claim], available: u64, tax: u8) -> Vec<u64> {
    let mut pages: Vec<_> = claims.iter().map(|claim| claim.max).collect();
    while pages.iter().sum::<u64>() > available {
        let can = (0..claims.len()).filter(|&i| pages[i] > claims[i].min);
        let Some(least) = can.max_by_key(|&i| price(&claims[i], pages[i], tax)) else { break };
        pages[least] -= 1;
    }
    pages
}

fn taxes() -> impl Strategy<Value = u8> {
    (0..=100_u8, 0..4_u8).prop_map(|(tax, kind)| [tax, 0, 75, 100][usize::from(kind)])
}

proptest! {
    #![proptest_config(Config { cases: effort(500) as u32, failure_persistence: None, ..Config::default() })]

    /// All that is available is handed out, within min and max.
    #[test]
    fn entitlements_add_up(claims in claims(1 << 22), available in 0..1_u64 << 24, tax in taxes()) {
        let out = entitled(&claims, available, tax);
        for (claim, pages) in claims.iter().zip(&out) {
            prop_assert!((claim.min..=claim.max).contains(pages), "{pages} of {claim:?}");
        }
        let least = claims.iter().map(|claim| claim.min).sum();
        let most = claims.iter().map(|claim| claim.max).sum();
        prop_assert_eq!(out.iter().sum::<u64>(), available.clamp(least, most));
    }

    /// The end is found where taking page after page from whoever pays least would end.
    #[test]
    fn entitlements_are_where_revocation_ends(claims in claims(2000), available in 0..6000_u64, tax in taxes()) {
        let (got, want) = (entitled(&claims, available, tax), revoked(&claims, available, tax));
        for (got, want) in got.iter().zip(&want) {
            prop_assert!(got.abs_diff(*want) <= claims.len() as u64, "{got} for {want} of {claims:?}");
        }
    }

    /// More shares, more activity where idle pages are taxed, more memory: nobody gets less for it.
    #[test]
    fn entitlements_grow_with_what_they_go_by(
        claims in claims(1 << 22), available in 0..1_u64 << 24, tax in taxes(), more in 1..1_u64 << 22, who in any::<usize>(),
    ) {
        let who = who % claims.len();
        let before = entitled(&claims, available, tax);
        let slack = claims.len() as u64;
        let changed = |change: fn(&mut Claim, u64)| {
            let mut claims = claims.clone();
            change(&mut claims[who], more);
            entitled(&claims, available, tax)
        };
        let richer = changed(|claim, more| claim.shares += more as u32);
        let busier = changed(|claim, more| claim.active += more);
        for (what, after) in [("shares", richer), ("activity", busier)] {
            for i in 0..claims.len() {
                let (before, after) = (before[i], after[i]);
                let right = if i == who { after + slack >= before } else { after <= before + slack };
                prop_assert!(right, "with {what} of {who}, {i} got {after} for {before}");
            }
        }
        let after = entitled(&claims, available + more, tax);
        prop_assert!(before.iter().zip(&after).all(|(before, after)| after + slack >= *before));
    }

    /// Neither the unit of memory nor that of shares matters.
    #[test]
    fn entitlements_have_no_scale(claims in claims(1 << 16), available in 0..1_u64 << 18, tax in taxes(), by in 2..100_u32) {
        let before = entitled(&claims, available, tax);
        let (wide, n) = (u64::from(by), claims.len() as u64);
        let times = |claim: &Claim| {
            Claim { min: claim.min * wide, max: claim.max * wide, active: claim.active * wide, ..*claim }
        };
        let larger = entitled(&claims.iter().map(times).collect::<Vec<_>>(), available * wide, tax);
        let dearer = |claim: &Claim| Claim { shares: claim.shares * by, ..*claim };
        let dearer = entitled(&claims.iter().map(dearer).collect::<Vec<_>>(), available, tax);
        for i in 0..claims.len() {
            prop_assert!(larger[i].abs_diff(before[i] * wide) <= n * wide, "{} for {} times {by}", larger[i], before[i]);
            prop_assert!(dearer[i].abs_diff(before[i]) <= n, "{} for {}", dearer[i], before[i]);
        }
    }

    /// While what is free stays within a band of 2 %, a level never goes back where it came from.
    #[test]
    fn levels_do_not_flap(total in 10_000..1_u64 << 30, from in 0..100_u64, noise in prop::collection::vec(0..100_u64, 2..200)) {
        let levels = Levels::new(total);
        for start in [Level::High, Level::Soft, Level::Hard, Level::Low] {
            let mut seen = vec![start];
            for noise in &noise {
                // From 0 to 10 %, and less than 2 % more.
                let next = levels.next(seen[seen.len() - 1], total / 1000 * from + total * noise / 5001);
                seen.push(next);
            }
            prop_assert!(seen.is_sorted() || seen.is_sorted_by(|a, b| a >= b), "{seen:?}");
        }
    }

    /// Who is admitted finds what it was promised; who is not is told by how much it does not.
    #[test]
    fn admission_is_sound(
        demands in prop::collection::vec((0..1000_u64, 0..1000_u64, 0..50_u64), 0..16),
        free in 0..9000_u64, swap in 0..3000_u64, overcommit in any::<bool>(),
    ) {
        let vms: Vec<_> = demands.iter().map(|&(a, b, overhead)| Demand { min: a.min(b), max: a.max(b), overhead }).collect();
        let least = |n: usize| vms[..n].iter().map(|vm| vm.min + vm.overhead).sum::<u64>();
        let most = |n: usize| vms[..n].iter().map(|vm| vm.max + vm.overhead).sum::<u64>();
        let fits = |n| least(n) <= free && (overcommit || most(n) <= free + swap);
        match admit(&vms, free, swap, overcommit) {
            Ok(()) => prop_assert!(fits(vms.len())),
            Err(refused) => {
                let n = usize::from(refused.vm.0);
                prop_assert!(fits(n) && !fits(n + 1));
                let memory = (least(n + 1) - least(n), free - least(n));
                let right = match refused.scarce {
                    Scarce::Memory => memory,
                    Scarce::Backing => (most(n + 1) - most(n), free + swap - most(n)),
                };
                prop_assert_eq!((refused.wanted, refused.left), right);
                prop_assert!(refused.wanted > refused.left);
            }
        }
    }

    /// Whatever the slices, the scanner has no more than its percentage of any time, and one slice.
    #[test]
    fn the_scanner_keeps_its_pace(percent in 1..=100_u8, steps in prop::collection::vec((0..500_u64, 1..3000_u64), 1..300)) {
        let mut pace = Pace::new(percent);
        let (mut now, mut spent, mut last) = (0, 0, 0);
        for (idle, slice) in steps {
            now += idle;
            if pace.may(now) {
                prop_assert!(spent <= now * u64::from(percent) / 100, "{spent} of {now} at {percent} %");
                now += slice;
                spent += slice;
                last = now;
                pace.spent(now, slice);
            }
        }
        prop_assert!(pace.may(last + 3000 * 100 / u64::from(percent)), "it comes to its turn");
    }
}

// --- Decisions -------------------------------------------------------------------------------------------------------------

/// Any VM, also one that no hypervisor would report.
fn vms() -> impl Strategy<Value = Vm> {
    let pages = || (any::<u64>(), 0..66_u32).prop_map(|(pages, shift)| pages.checked_shr(shift).unwrap_or(0));
    let sane = || 0..200_000_u64;
    let amounts = |amount: [u64; 6], kind: u8| Vm {
        min: amount[0] / 8,
        max: amount[1],
        used: amount[2],
        active: amount[3],
        balloon: amount[4],
        target: amount[5],
        shares: amount[0] as u32,
        has_balloon: kind & 3 != 0,
        reports: kind & 16 != 0,
        running: kind & 12 != 0,
    };
    let wild = [pages(), pages(), pages(), pages(), pages(), pages()];
    let tame = [sane(), sane(), sane(), sane(), sane(), sane()];
    (wild, tame, any::<u8>()).prop_map(move |(wild, tame, kind)| amounts(if kind < 32 { wild } else { tame }, kind))
}

fn check(policy: &Policy, now: u64, level: Level, vm: &Vm, id: VmId, decision: &Decision) -> Result<(), String> {
    let most = (u128::from(vm.max) * 65 / 100).min(u128::from(vm.max.saturating_sub(vm.min)));
    let limit = most.min(u128::from(u64::MAX)) as u64;
    let (step, gentle) = ((vm.max / 8).max(MIB), (vm.max / 32).max(MIB));
    let (balloon, target) = (decision.balloon, vm.target);
    let pinned = policy.pinned(id);
    let rules = [
        (pinned.is_none_or(|pinned| balloon == pinned.min(vm.max)), "a pin counts"),
        (vm.running || pinned.is_some() || balloon == target, "who does not run is not asked"),
        (!vm.running || pinned.is_some() || u128::from(balloon) <= most, "a balloon has its limit"),
        (pinned.is_some() || balloon <= target.max(vm.balloon.saturating_add(step)), "a balloon grows by steps"),
        (
            pinned.is_some() || balloon >= vm.balloon.saturating_sub(gentle).min(target).min(limit),
            "and shrinks by smaller ones",
        ),
        (level < Level::Hard || pinned.is_some() || balloon >= vm.balloon.min(target).min(limit), "nor at hard"),
        (vm.used - decision.pack.min(vm.used) >= vm.min.min(vm.used).min(MOST), "min is left"),
        (
            decision.pack == 0 || vm.used - decision.pack.min(vm.used) >= decision.entitled,
            "what it is entitled to is left",
        ),
        (level > Level::High || decision.pack == 0, "nothing is taken at high"),
        (
            !decision.hint || level == Level::Soft && !vm.reports,
            "free pages are named where there is memory to touch them",
        ),
        (level > Level::High || pinned.is_some() || balloon <= vm.balloon.max(target), "nor by a balloon"),
        (!decision.blocked || level == Level::Low && vm.used > decision.entitled && vm.running, "few stand still"),
    ];
    for (holds, rule) in rules {
        if !holds {
            return Err(format!("{rule}: {decision:?} for {vm:?} at {level}"));
        }
    }
    let told: i128 =
        policy.journal().of(id).filter(|event| event.at_ms == now).map(|event| i128::from(event.pages)).sum();
    let done = i128::from(target) - i128::from(balloon) - i128::from(decision.pack);
    if told != done && done.unsigned_abs() < 1 << 62 {
        return Err(format!("told {told}, done {done}"));
    }
    Ok(())
}

proptest! {
    #![proptest_config(Config { cases: effort(1000) as u32, failure_persistence: None, ..Config::default() })]

    /// Whatever is reported, decisions keep within bounds, and each is in the journal.
    #[test]
    fn orders_keep_within_bounds(
        total in 1..400_000_u64,
        ticks in prop::collection::vec((0..12_u64, prop::collection::vec(vms(), 4)), 1..20),
        tax in any::<u8>(), pins in prop::collection::vec((0..6_u16, any::<u64>()), 0..3),
    ) {
        let mut policy = Policy::new(Settings { tax, ..Settings::default() }, total, 4);
        for (vm, pages) in pins {
            policy.pin(VmId(vm), Some(pages >> (pages & 63)));
        }
        for (second, (percent, vms)) in ticks.iter().enumerate() {
            let now = 2000 * second as u64;
            let decisions = policy.tick(now, total * percent / 100, vms);
            for (i, (vm, decision)) in vms.iter().zip(&decisions.vms).enumerate() {
                check(&policy, now, decisions.level, vm, VmId(i as u16), decision).map_err(proptest::test_runner::TestCaseError::fail)?;
            }
        }
    }
}

#[test]
fn a_board_may_have_none_or_too_many_vms() {
    let mut policy = Policy::new(Settings::default(), 0, 0);
    assert!(policy.tick(0, 0, &[]).vms.is_empty());
    let mut policy = Policy::new(Settings::default(), 1000, 40);
    assert_eq!(policy.tick(0, u64::MAX, &[Vm::default(); 40]).vms.len(), MOST_VMS);
    policy.pin(VmId(39), Some(1));
}

// --- Boards -------------------------------------------------------------------------------------------------------------

/// ESX's experiment: two equal VMs, one busy and one idle, whose roles are then swapped. The mean speeds of the busy one in
/// both phases.
fn busy_speeds(tax: u8) -> ([u64; 2], Vec<Second>) {
    let trace = Trace::parse("idle-tax", include_str!("../../scripts/traces/idle-tax.trace")).unwrap();
    let seconds = Simulation::new(&trace, Settings { tax, ..Settings::default() }, 1).run();
    let phases = phases(&trace, &seconds);
    ([mean_speed(phases[1], 1), mean_speed(phases[2], 0)], seconds)
}

#[test]
fn the_tax_moves_memory_to_the_busy_one_and_back() {
    let (before, untaxed) = busy_speeds(0);
    let (after, taxed) = busy_speeds(75);
    println!("speed of the busy one in per mille: {before:?} without tax, {after:?} with a tax of 75 %");
    for (before, after) in before.into_iter().zip(after) {
        assert!(after * 100 > before * 130, "from {before} to {after}: less than 30 % faster");
        assert!(after > 990, "{after}: its working set fits");
    }
    let at = |seconds: &[Second], second: usize| [0, 1].map(|vm| seconds[second].vms[vm].used / MIB);
    let shares = at(&untaxed, 650);
    assert!(shares[0].abs_diff(shares[1]) < 20, "without tax, memory goes by shares: {shares:?}");
    let (first, then) = (at(&taxed, 650), at(&taxed, 1250));
    assert!(first[1] >= 335 && first[0] < 160, "{first:?}");
    assert!(then[0] >= 335 && then[1] < 160, "{then:?}");
    assert!(taxed[400..650].iter().all(|second| second.level == Level::High), "it comes to rest");
    assert!(taxed.iter().all(|second| second.free > 0), "memory never runs out");
}

fn driver(kind: u8) -> Driver {
    [Driver::Willing, Driver::Willing, Driver::Willing, Driver::Dead, Driver::Missing][usize::from(kind) % 5]
}

/// Guests of any size on a board of 64 to 512 MiB, busy for 120 seconds, idle for 80.
fn traces() -> impl Strategy<Value = Trace> {
    let vm = (10..90_u64, 0..25_u64, 1..3000_u32, any::<u8>());
    let change = (0..120_u64, any::<usize>(), 0..=100_u64);
    (64..512_u64, prop::collection::vec(vm, 1..6), prop::collection::vec(change, 1..12)).prop_map(
        |(board, vms, changes)| {
            let board = board * MIB;
            let n = vms.len() as u64;
            let vms: Vec<_> = vms
                .into_iter()
                .enumerate()
                .map(|(i, (percent, min, shares, kind))| {
                    let max = board * percent / 100;
                    Traced {
                        name: i.to_string(),
                        max,
                        min: (max * min / 100).min(board / 2 / n),
                        shares,
                        driver: driver(kind),
                    }
                })
                .collect();
            let change = |(at, vm, percent): (u64, usize, u64)| {
                let vm = vm % vms.len();
                Change { at, vm, pages: vms[vm].max * percent / 100 }
            };
            let mut changes: Vec<_> = changes.into_iter().map(change).collect();
            changes.extend((0..vms.len()).map(|vm| Change { at: 120, vm, pages: 0 }));
            Trace { board, vms, changes, end: 200 }
        },
    )
}

proptest! {
    #![proptest_config(Config { cases: effort(150) as u32, failure_persistence: None, ..Config::default() })]

    /// Some guests without balloons, some with dead ones, more memory asked for than there is: once they have had enough, so
    /// much is free again that nothing needs to be taken, or nobody has more than its min.
    #[test]
    fn what_can_be_had_back_is(trace in traces(), seed in any::<u64>()) {
        let mut simulation = Simulation::new(&trace, Settings::default(), seed);
        let seconds = simulation.run();
        let enough = Levels::new(trace.board).floor(Level::Soft);
        let last = &seconds[seconds.len() - 1];
        let is_more = |(guest, row): (&simulator::guest::Guest, &simulator::Row)| row.used > guest.min();
        let reclaimable = simulation.guests().iter().zip(&last.vms).any(is_more);
        prop_assert!(last.free >= enough || !reclaimable, "{last:?} of {trace:?}");
        for second in &seconds {
            for (guest, row) in simulation.guests().iter().zip(&second.vms) {
                prop_assert!(row.balloon <= guest.as_known().max * 65 / 100);
            }
        }
    }
}

/// A VM that has all it may have and uses none of it.
const IDLE: Vm = Vm {
    min: 1000,
    max: 18_000,
    shares: 100,
    used: 18_000,
    active: 0,
    balloon: 0,
    target: 0,
    has_balloon: true,
    reports: false,
    running: true,
};

#[test]
fn a_balloon_that_moves_is_not_stuck_and_one_that_stands_still_is() {
    // How many pages it moves a second, towards a target that stays ahead; whether it is given up on.
    for (moves, stands) in [(MIB, false), (2 * MIB, false), (0, true), (MIB - 1, false), (1, true)] {
        let mut policy = Policy::new(Settings::default(), 20_000, 2);
        let (mut vm, other) = (IDLE, Vm { active: 2000, used: 2000, min: 2000, max: 2000, has_balloon: false, ..IDLE });
        for second in 0..20 {
            // The board is short, whatever is given.
            let decisions = policy.tick(1000 * second, 150, &[vm, other]);
            let decision = &decisions.vms[0];
            vm.target = decision.balloon.max(vm.balloon + 4 * MIB);
            vm.balloon += moves;
            vm.used = 18_000 - vm.balloon;
        }
        let why: Vec<_> = policy.journal().of(VmId(0)).map(|event| event.to_string()).collect();
        let is_stuck = why.iter().any(|line| line.contains("stood still"));
        assert_eq!(is_stuck, stands, "{moves} pages a second: {why:?}");
    }
}

/// A balloon that stood still is not trusted because nothing is asked of it, but because it has moved.
#[test]
fn who_stood_still_has_to_move_to_be_trusted_again() {
    for (moved, is_stuck) in [(0, true), (1, false)] {
        let mut policy = Policy::new(Settings::default(), 20_000, 2);
        let (mut vm, other) = (IDLE, Vm { active: 2000, used: 2000, min: 2000, max: 2000, has_balloon: false, ..IDLE });
        let mut seconds = 0;
        let mut tick = |vm: &Vm| {
            seconds += 1;
            let _ = policy.tick(1000 * seconds, 150, &[*vm, other]);
            policy.journal().of(VmId(0)).filter(|event| event.to_string().contains("stood still")).count()
        };
        vm.target = 4 * MIB;
        let told = (0..20).map(|_| tick(&vm)).last().unwrap();
        assert!(told > 0);
        // It is where it should be, for a while.
        (vm.balloon, vm.target) = (moved, moved);
        let told = (0..3).map(|_| tick(&vm)).last().unwrap();
        vm.target = 4 * MIB;
        assert_eq!(tick(&vm) > told, is_stuck, "after {moved} pages");
    }
}
