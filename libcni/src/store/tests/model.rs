//! Random histories against a simple model, with somebody else writing into the directory.
use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;

/// What happens. IDs and addresses are small numbers, so that everything collides.
#[derive(Debug, Clone)]
enum Step {
    Add(u8),
    AddRequested(u8, u8),
    Del(u8),
    Check(u8),
    Gc(Vec<u8>),
    Status,
    /// The reference, holding the lock: reserves and writes its cursor.
    ForeignAdd(u8, u8),
    /// The reference: removes what a container has.
    ForeignDel(u8),
    /// A killed reference: an empty file.
    ForeignTorn(u8),
    /// The index is lost.
    LoseIndex,
    /// The machine goes down and up; its files survive, its pods do not.
    Reboot,
    /// One of us is killed in the middle: the header says so.
    LeaveDirty,
}

fn step() -> impl Strategy<Value = Step> {
    let id = 0u8..12;
    let ip = 0u8..10;
    prop_oneof![
        6 => id.clone().prop_map(Step::Add),
        2 => (id.clone(), ip.clone()).prop_map(|(id, ip)| Step::AddRequested(id, ip)),
        4 => id.clone().prop_map(Step::Del),
        2 => id.clone().prop_map(Step::Check),
        1 => prop::collection::vec(id.clone(), 0..8).prop_map(Step::Gc),
        1 => Just(Step::Status),
        2 => (id.clone(), ip.clone()).prop_map(|(id, ip)| Step::ForeignAdd(id, ip)),
        2 => id.prop_map(Step::ForeignDel),
        1 => ip.prop_map(Step::ForeignTorn),
        1 => Just(Step::LoseIndex),
        1 => Just(Step::Reboot),
        1 => Just(Step::LeaveDirty),
    ]
}

/// The ten addresses of the two ranges, in their order. The first is the gateway.
const IPS: [&str; 10] = [
    "10.1.2.1", "10.1.2.2", "10.1.2.3", "10.1.2.4", "10.1.2.5", "10.1.2.6", // a /29
    "10.1.9.4", "10.1.9.5", "10.1.9.6", "10.1.9.7",
];
const SET: &str = r#""ranges": [[{"subnet": "10.1.2.0/29"},
    {"subnet": "10.1.9.0/24", "rangeStart": "10.1.9.4", "rangeEnd": "10.1.9.7"}]]"#;

#[derive(Debug, Default)]
struct Model {
    /// Holder by index into [`IPS`]; None is a torn file.
    files: BTreeMap<usize, Option<u8>>,
    cursor: Option<usize>,
    /// Addresses that had a holder.
    ever: BTreeSet<usize>,
    /// Somebody else wrote, or something was lost: `reused` may be a false alarm.
    vague: bool,
    /// Somebody else wrote since the last of our changes.
    behind: bool,
    /// What the index lists.
    listed: BTreeSet<usize>,
    rebooted: bool,
}

impl Model {
    /// What any change of ours begins with.
    fn before_change(&mut self) {
        if self.rebooted {
            self.files.retain(|ip, _| !self.listed.contains(ip));
            self.ever.clear();
            self.vague = false;
            self.rebooted = false;
        }
        self.vague |= self.behind;
        self.behind = false;
    }

    fn after_change(&mut self) {
        let listed = self.files.iter().filter(|(_, holder)| holder.is_some());
        self.listed = listed.map(|(ip, _)| *ip).collect();
    }

    fn foreign(&mut self, ip: usize) {
        self.listed.remove(&ip);
        self.behind = true;
    }

    fn held(&self, id: u8) -> Vec<usize> {
        let of = |(ip, holder): (&usize, &Option<u8>)| (*holder == Some(id)).then_some(*ip);
        self.files.iter().filter_map(of).collect()
    }

    fn is_free(&self, ip: usize) -> bool {
        ip != 0 && self.files.get(&ip).is_none_or(Option::is_none)
    }

    fn next(&self) -> Option<usize> {
        let start = self.cursor.map_or(0, |cursor| cursor + 1);
        (start..start + IPS.len())
            .map(|ip| ip % IPS.len())
            .find(|ip| self.is_free(*ip))
    }

    fn give(&mut self, ip: usize, id: u8) -> bool {
        self.files.insert(ip, Some(id));
        self.cursor = Some(ip);
        !self.ever.insert(ip)
    }
}

fn name(id: u8) -> String {
    format!("c{id}")
}

fn run(steps: &[Step]) {
    let net = Net::new(SET);
    net.reboot(0);
    fs::create_dir(net.dir()).unwrap();
    let conf = net.conf();
    let path = |ip: usize| net.dir().join(IPS[ip]);
    let mut model = Model::default();
    let mut boot = 1;
    for step in steps {
        let changes = matches!(
            step,
            Step::Add(_) | Step::AddRequested(..) | Step::Del(_) | Step::Gc(_)
        );
        if changes {
            model.before_change();
        }
        match step {
            Step::Add(id) => {
                let got = conf.add(&attachment(&name(*id)));
                match (model.held(*id).is_empty(), model.next()) {
                    (true, Some(ip)) => {
                        let lease = got.unwrap();
                        assert_eq!(
                            lease.result.ips[0].address.ip().to_string(),
                            IPS[ip],
                            "{step:?}"
                        );
                        let used_before = model.give(ip, *id);
                        assert!(
                            lease.reused || !used_before,
                            "{step:?}: {} was used",
                            IPS[ip]
                        );
                        assert!(
                            model.vague || lease.reused == used_before,
                            "{step:?}: alarm"
                        );
                    }
                    _ => assert!(got.is_err(), "{step:?}"),
                }
            }
            Step::AddRequested(id, ip) => {
                let ip = usize::from(*ip);
                let got = add(&net.requesting(&[IPS[ip]]), &name(*id));
                if model.held(*id).is_empty() && model.is_free(ip) {
                    assert_eq!(got.unwrap(), [IPS[ip]]);
                    model.give(ip, *id);
                } else {
                    got.unwrap_err();
                }
            }
            Step::Del(id) => {
                let mut empty = false;
                let freed = conf
                    .dir
                    .release(&attachment(&name(*id)), || empty = true)
                    .unwrap();
                let held = model.held(*id);
                let mut freed: Vec<_> = freed.iter().map(ToString::to_string).collect();
                freed.sort();
                assert_eq!(
                    freed,
                    held.iter().map(|ip| IPS[*ip]).collect::<Vec<_>>(),
                    "{step:?}"
                );
                model.files.retain(|ip, _| !held.contains(ip));
                assert_eq!(empty, model.files.values().all(Option::is_none), "{step:?}");
            }
            Step::Check(id) => {
                assert_eq!(
                    conf.dir.check(&attachment(&name(*id))).is_ok(),
                    !model.held(*id).is_empty()
                );
            }
            Step::Gc(ids) => {
                let valid: Vec<_> = ids.iter().map(|id| attachment(&name(*id))).collect();
                let n = conf.dir.gc(&valid, |_| (), || ()).unwrap();
                let before = model.files.len();
                model
                    .files
                    .retain(|_, holder| holder.is_some_and(|id| ids.contains(&id)));
                assert_eq!(n, before - model.files.len(), "{step:?}");
            }
            Step::Status => {
                let clears = model.rebooted && net.dir().join(".podwire/index").exists();
                if clears {
                    model.before_change();
                }
                assert_eq!(conf.status().is_ok(), model.next().is_some(), "{step:?}");
                if clears {
                    model.after_change();
                }
            }
            Step::ForeignAdd(id, ip) => {
                let ip = usize::from(*ip);
                if !path(ip).exists() && model.held(*id).is_empty() {
                    net.reserve_as_reference(IPS[ip], &format!("{}\r\neth0", name(*id)));
                    fs::write(net.dir().join("last_reserved_ip.0"), IPS[ip]).unwrap();
                    model.give(ip, *id);
                    model.foreign(ip);
                }
            }
            Step::ForeignDel(id) => {
                for ip in model.held(*id) {
                    fs::remove_file(path(ip)).unwrap();
                    model.files.remove(&ip);
                    model.foreign(ip);
                }
            }
            Step::ForeignTorn(ip) => {
                let ip = usize::from(*ip);
                if !path(ip).exists() {
                    fs::write(path(ip), "").unwrap();
                    model.files.insert(ip, None);
                    model.foreign(ip);
                }
            }
            Step::LoseIndex => {
                if fs::remove_dir_all(net.dir().join(".podwire")).is_ok() {
                    model.behind = true;
                    model.listed.clear();
                }
            }
            Step::Reboot => {
                net.reboot(boot);
                boot += 1;
                model.rebooted = true;
            }
            Step::LeaveDirty => {
                let dir = dir::Dir::create(conf.dir.path()).unwrap();
                if let Some(mut index) = dir.side(false).ok().as_ref().and_then(index::Index::open)
                {
                    index.begin().unwrap();
                    model.behind = true;
                }
            }
        }
        if changes {
            model.after_change();
        }
        let on_disk: BTreeSet<&str> = IPS
            .into_iter()
            .filter(|ip| net.dir().join(ip).exists())
            .collect();
        assert_eq!(
            on_disk,
            model.files.keys().map(|ip| IPS[*ip]).collect(),
            "{step:?}"
        );
        for (ip, holder) in &model.files {
            let wanted = holder.map_or_else(String::new, |id| format!("{}\r\neth0", name(id)));
            assert_eq!(fs::read_to_string(path(*ip)).unwrap(), wanted, "{step:?}");
        }
    }
}

#[test]
fn random_histories() {
    // A reboot looks into every network namespace.
    testkit::in_netns(|| {
        proptest!(|(steps in prop::collection::vec(step(), 1..60))| run(&steps));
    });
}
