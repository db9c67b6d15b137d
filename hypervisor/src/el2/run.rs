//! The run loop's CPU ([`flatland::run::Cpu`]), at EL2.

use super::machine::El2;
use super::{context, guest, irq, masked, power, timer, uart};
use aarch64_cpu::asm::wfi;
use flatland::arm::el1::Context;
use flatland::arm::el2::El2Registers;
use flatland::host::Host;
use flatland::run::{Cpu, Exit, Irq};
use flatland::vcpu::{Fp, Registers};
use platform::gic::Ack;

impl Cpu for El2 {
    type Ack = Ack;

    #[inline(always)]
    fn enter(&self, registers: &mut Registers) -> Exit {
        masked::end();
        let exit = guest::run(registers);
        masked::begin();
        exit
    }

    fn drain_serrors(&self) -> bool {
        guest::drain()
    }

    #[inline]
    fn load_context(&self, context: &Context, el2: &El2Registers) {
        context::load(context, el2);
    }

    #[inline]
    fn save_context(&self, context: &mut Context) {
        context::save(context);
    }

    fn be_nobody(&self) {
        context::unload();
    }

    fn reset_traps(&self) {
        context::uncontrol();
    }

    fn trap_fp(&self, trap: bool) {
        context::trap_fp(trap);
    }

    fn load_fp(&self, fp: &Fp) {
        context::load_fp(fp);
    }

    fn save_fp(&self, fp: &mut Fp) {
        context::save_fp(fp);
    }

    #[inline(always)]
    fn set_deadline(&self, at: Option<u64>) {
        timer::set(at);
    }

    fn set_timer_active(&self, active: bool) {
        irq::set_timer_active(active);
    }

    fn wait_for_interrupt(&self) {
        // Interrupts are masked; a pending one ends WFI all the same (Arm ARM D1.6.1).
        masked::end();
        wfi();
        masked::begin();
    }

    #[inline(always)]
    fn acknowledge(&self) -> Option<(Irq, Ack)> {
        masked::between();
        irq::acknowledge()
    }

    #[inline(always)]
    fn end(&self, ack: Ack, deactivate: bool) {
        irq::end(ack, deactivate);
    }

    fn send_console(&self, host: &Host) {
        uart::drain(host);
    }

    fn serve_uart(&self, host: &Host) {
        uart::serve(host);
    }

    fn power_off(&self, host: &Host) {
        power::all_over(host)
    }
}
