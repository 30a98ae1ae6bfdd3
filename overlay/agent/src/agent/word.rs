//! What the agent says: to the log, to metrics, to the node's plugins and runtime.

use std::collections::BTreeSet;

use fabric::converge::Report;
use fabric::{Status, SubnetEnv};
use tracing::{error, info, warn};

use super::{Agent, rfc3339};
use crate::conflist;
use crate::directory::Ready;
use crate::notify;

impl Agent {
    pub(super) fn tell_rules(&mut self, rules: &Result<(), String>) {
        match (rules, &self.rules) {
            (Ok(()), Ok(())) => {}
            (Ok(()), Err(_)) => info!("packet filtering is as it has to be again"),
            (Err(why), before) => {
                self.metrics(|metrics| metrics.failed("rules"));
                if before.as_ref().err() != Some(why) {
                    error!(%why, "packet filtering is not as it has to be");
                }
            }
        }
        self.rules = rules.clone();
    }

    pub(super) fn tell(&mut self, report: &Report) {
        let heard = self
            .about
            .heard
            .filter(|_| report.messages > 0 && report.repaired == 0);
        let peers = self.about.peers.len();
        self.metrics(|metrics| metrics.reconciled(report, peers, heard));
        if report.repaired > 0 {
            warn!(
                repaired = report.repaired,
                "somebody else changed what is this agent's"
            );
        }
        if report.messages > 0 {
            let Report {
                added,
                changed,
                removed,
                took,
                ..
            } = report;
            info!(added, changed, removed, took = ?took, "the kernel agrees");
        }
        for (peer, why) in &report.failed {
            error!(%peer, %why, "cannot reach a peer");
        }
        let refused: BTreeSet<String> = report
            .refused
            .iter()
            .map(|refusal| format!("{}: {}", refusal.key, refusal.reason))
            .collect();
        for refusal in refused.difference(&self.refused) {
            warn!(%refusal, "a peer is not believed");
        }
        self.refused = refused;
    }

    /// What is missing, if anything is.
    fn missing(&self) -> Option<String> {
        let Some(last) = &self.last else {
            return Some("no lease yet".into());
        };
        if let Err(why) = &last.report {
            return Some(why.clone());
        }
        if let Err(why) = &self.rules {
            return Some(why.clone());
        }
        if let Some(why) = &self.about.lost {
            return Some(why.clone());
        }
        if !self.about.complete && self.known.is_none() {
            return Some("the directory has not told of the other nodes yet".into());
        }
        let failed = last.report.iter().flat_map(|report| &report.failed).next();
        failed.map(|(peer, why)| format!("peer {peer}: {why}"))
    }

    /// Tells plugins, runtime and directory whether pods have a network. The configuration that lets a runtime start
    /// pods comes last.
    pub(super) fn report_ready(&mut self) {
        let ready = match self.missing().or_else(|| self.write_env().err()) {
            None => Ready::Yes,
            Some(why) => Ready::No(why),
        };
        if *self.inputs.ready.borrow() != ready {
            match &ready {
                Ready::Yes => {
                    info!("ready");
                    notify::ready();
                }
                Ready::No(why) => warn!(%why, "not ready"),
            }
        }
        self.metrics(|metrics| metrics.ready(ready == Ready::Yes));
        self.write_status(&ready);
        if ready == Ready::Yes {
            let file = &self.options.cni_conf;
            match conflist::ensure(file, self.options.cni_conf_template.as_deref()) {
                Ok(true) => info!(file = %file.display(), "wrote the CNI configuration"),
                Ok(false) => {}
                Err(error) => {
                    error!(file = %file.display(), %error, "cannot write the CNI configuration")
                }
            }
        }
        self.inputs.ready.send_if_modified(|before| {
            let changed = *before != ready;
            *before = ready;
            changed
        });
    }

    fn write_env(&self) -> Result<(), String> {
        let Some(last) = &self.last else {
            return Ok(());
        };
        let sides = [last.own.v4, last.own.v6];
        let env = SubnetEnv {
            networks: sides.iter().flatten().map(|side| side.network).collect(),
            subnets: sides.iter().flatten().map(|side| side.subnet).collect(),
            mtu: last.own.pod_mtu(),
            ip_masq: self.options.ip_masq,
        };
        let file = &self.options.subnet_file;
        if SubnetEnv::read(file).is_ok_and(|there| there == env) {
            return Ok(());
        }
        env.write(file)
            .map_err(|e| format!("write {}: {e}", file.display()))
    }

    fn write_status(&mut self, ready: &Ready) {
        let own = self.last.as_ref().map(|last| &last.own);
        let status = Status {
            ready: *ready == Ready::Yes,
            reason: match ready {
                Ready::Yes => String::new(),
                Ready::No(why) => why.clone(),
            },
            devices: own
                .into_iter()
                .flat_map(|own| [own.device(false), own.device(true)])
                .flatten()
                .collect(),
            converged: String::new(),
            pid: std::process::id(),
        };
        if self.status.as_ref() == Some(&status) {
            return;
        }
        let converged = if status.ready {
            rfc3339()
        } else {
            String::new()
        };
        let written = Status {
            converged,
            ..status.clone()
        }
        .write(&self.options.subnet_file);
        match written {
            Ok(()) => self.status = Some(status),
            Err(error) => error!(%error, "cannot tell the CNI plugin"),
        }
    }
}
