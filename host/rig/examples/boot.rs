//! Boots and stops.
use rig::*;
fn main() {
    let layout = Layout::find().unwrap();
    let w =
        match World::boot(&layout, Firewall::Linux, Mode::Pv, &[plan::WORK, plan::PERSONAL], false)
        {
            Ok(w) => w,
            Err(e) => {
                println!("{e}");
                return;
            }
        };
    let r = (|| -> Result<()> {
        let work = w.client(plan::WORK)?;
        println!("{:?}", w.xen.usage());
        println!("{:?}", work.ping(plan::FIREWALL, 3));
        println!("{:?}", work.ping(plan::SERVER, 3));
        println!("{:?}", work.connect(plan::SERVER, 80));
        println!("{:?}", work.connect(plan::SERVER, 81));
        println!("{:?}", work.connect(plan::REJECTED, 80));
        println!("{:?}", work.connect_unanswered(plan::DROPPED, 80));
        println!("{:?}", work.udp(plan::SERVER, 7, 10, 1000));
        println!("{:?}", work.fetch(plan::SERVER, 80, 1000000));
        println!("{:?}", work.resolve(plan::VIRTUAL_DNS[0], "www.x.test", false));
        println!("{:?}", work.resolve(plan::VIRTUAL_DNS[1], "www.x.test", true));
        println!("{:?}", work.iperf(plan::SERVER, Way::Up, 3));
        println!("{:?}", work.iperf(plan::SERVER, Way::Down, 3));
        println!("{:?}", w.xen.network_detach("work", 0));
        println!("{:?}", w.xen.usage());
        w.xen.save_logs()?;
        println!("{}", w.last_words());
        Ok(())
    })();
    println!("{r:?}");
    println!("{}", w.last_words());
}
