//! Cluster IPs and node ports.
//!
//! ```text
//! create/update: prepare -> fields filled in, numbers taken -> write -> commit (old numbers go back)
//!                                                          \-> failed: drop (new numbers go back)
//! delete:        release_all -> write -> commit
//! ```
//!
//! Guarantees: a number belongs to one Service at most, whatever runs at the same time, for it is taken before the
//! object is written and given back only after the object without it has been; what is taken is read from the
//! store at start. The lock is held for a few bit operations, by writers of Services only.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;
use std::sync::Arc;

use ipnet::Ipv4Net;
use parking_lot::Mutex;
use serde_json::{Value, json};
use wherry_api::field::{FieldError, Path};
use wherry_api::meta;
use wherry_api::status::Status;

use super::pool::Pool;
use super::spec::{Held, held, keep_allocated, service_type, text, wants_health_port, wants_ports};

/// Hands out cluster IPs and node ports.
pub(crate) struct Services {
    cidr: Ipv4Net,
    ports: RangeInclusive<u16>,
    /// Addresses that only an explicit request gets (the API's own and DNS).
    reserved: Vec<Ipv4Addr>,
    pools: Mutex<Pools>,
}

struct Pools {
    addresses: Pool,
    ports: Pool,
}

/// Numbers taken for a write that has not happened yet; dropped without [`Reservation::commit`] they go back.
#[must_use]
pub(crate) struct Reservation {
    services: Arc<Services>,
    taken: Held,
    obsolete: Held,
}

impl Reservation {
    /// The object is written: what only its predecessor held goes back.
    pub(crate) fn commit(mut self) {
        self.taken = std::mem::take(&mut self.obsolete);
    }

    /// Nobody knows whether the object was written: what it may hold stays taken until the next start.
    pub(crate) fn keep(mut self) {
        self.taken = Held::default();
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.services.release(&self.taken);
    }
}

impl Services {
    pub(crate) fn new(cidr: Ipv4Net, ports: RangeInclusive<u16>, reserved: Vec<Ipv4Addr>) -> Self {
        // The network's own address and its broadcast address are never handed out.
        let hosts = (1usize << (32 - u32::from(cidr.prefix_len()).min(32))).saturating_sub(2);
        let count = usize::from(ports.end().saturating_sub(*ports.start())) + 1;
        // Upstream's sizes of the band for explicit requests.
        let addresses = Pool::new(hosts, (hosts / 16).clamp(16, 256));
        let pool = Pool::new(count, (count / 32).clamp(16, 128));
        Self { cidr, ports, reserved, pools: Mutex::new(Pools { addresses, ports: pool }) }
    }

    /// Takes what an existing Service holds.
    pub(crate) fn recover(&self, service: &Value) {
        let held = held(service);
        let mut pools = self.pools.lock();
        for address in held.addresses {
            let fresh = self.address_index(address).is_some_and(|i| pools.addresses.take(i));
            if !fresh {
                tracing::warn!(%address, service = meta::name(service), "cluster IP out of range or held twice");
            }
        }
        for port in held.ports {
            if let Some(i) = self.port_index(port) {
                pools.ports.take(i);
            }
        }
    }

    /// Fills in what `new` needs and has not, keeping what `old` had.
    pub(crate) fn prepare(self: &Arc<Self>, new: &mut Value, old: Option<&Value>) -> Result<Reservation, Status> {
        if let Some(old) = old {
            keep_allocated(new, old);
        }
        let before = old.map(held).unwrap_or_default();
        let mut reservation =
            Reservation { services: Arc::clone(self), taken: Held::default(), obsolete: Held::default() };
        let taken = &mut reservation.taken;
        self.prepare_address(new, &before, taken).and_then(|()| self.prepare_ports(new, &before, taken)).map_err(
            |failure| match failure {
                Failure::Field(error) => Status::invalid("", "Service", meta::name(new), &[error]),
                Failure::Full(what) => Status::internal(format!("failed to allocate a {what}: range is full")),
            },
        )?;
        let after = held(new);
        reservation.obsolete = Held {
            addresses: before.addresses.into_iter().filter(|a| !after.addresses.contains(a)).collect(),
            ports: before.ports.into_iter().filter(|p| !after.ports.contains(p)).collect(),
        };
        Ok(reservation)
    }

    /// What `old` holds goes back once its deletion is committed.
    pub(crate) fn release_all(self: &Arc<Self>, old: &Value) -> Reservation {
        Reservation { services: Arc::clone(self), taken: Held::default(), obsolete: held(old) }
    }

    fn prepare_address(&self, new: &mut Value, before: &Held, taken: &mut Held) -> Result<(), Failure> {
        let spec = meta::map_mut(new, "spec");
        if service_type(spec) == "ExternalName" {
            for field in ["clusterIP", "clusterIPs", "ipFamilies", "ipFamilyPolicy"] {
                spec.remove(field);
            }
            return Ok(());
        }
        spec.entry("ipFamilies").or_insert_with(|| json!(["IPv4"]));
        spec.entry("ipFamilyPolicy").or_insert_with(|| json!("SingleStack"));
        let asked = match text(spec, "clusterIP") {
            "" => spec.get("clusterIPs").and_then(|v| v.get(0)).and_then(Value::as_str).unwrap_or_default(),
            one => one,
        }
        .to_owned();
        let address = match asked.as_str() {
            "None" => "None".to_owned(),
            "" => {
                let reserved = |i: usize| self.address(i).is_none_or(|a| self.reserved.contains(&a));
                let index = self.pools.lock().addresses.take_any(reserved).ok_or(Failure::Full("cluster IP"))?;
                let address = self.address(index).ok_or(Failure::Full("cluster IP"))?;
                taken.addresses.push(address);
                address.to_string()
            }
            text => {
                self.take_address(text, before, taken)?;
                text.to_owned()
            }
        };
        spec.insert("clusterIPs".to_owned(), json!([address]));
        spec.insert("clusterIP".to_owned(), address.into());
        Ok(())
    }

    fn take_address(&self, text: &str, before: &Held, taken: &mut Held) -> Result<(), Failure> {
        let invalid =
            |detail: String| Failure::Field(FieldError::invalid(&Path::new("spec.clusterIPs").index(0), text, detail));
        let address: Ipv4Addr =
            text.parse().map_err(|_| invalid("must be a valid IP address, (e.g. 10.9.8.7)".to_owned()))?;
        if before.addresses.contains(&address) {
            return Ok(());
        }
        let index = self.address_index(address).ok_or_else(|| {
            invalid(format!(
                "failed to allocate IP {text}: the provided IP ({text}) is not in the valid range. The range of valid IPs is {}",
                self.cidr
            ))
        })?;
        if !self.pools.lock().addresses.take(index) {
            return Err(invalid(format!("failed to allocate IP {text}: provided IP is already allocated")));
        }
        taken.addresses.push(address);
        Ok(())
    }

    fn prepare_ports(&self, new: &mut Value, before: &Held, taken: &mut Held) -> Result<(), Failure> {
        let spec = meta::map_mut(new, "spec");
        let (wants, health) = (wants_ports(spec), wants_health_port(spec));
        let Some(ports) = spec.get_mut("ports").and_then(Value::as_array_mut) else {
            return Ok(());
        };
        // Explicit ports first, so that free choice does not take what a later port asks for. One number may
        // serve two protocols of the same Service.
        let asked = |port: &Value| port.get("nodePort").and_then(Value::as_i64).filter(|n| *n != 0);
        for (i, port) in ports.iter_mut().enumerate() {
            let Some(number) = asked(port) else { continue };
            self.take_port(number, &Path::new("spec.ports").index(i).child("nodePort"), before, taken)?;
        }
        for port in ports.iter_mut().filter(|p| asked(p).is_none()) {
            let Some(port) = port.as_object_mut() else {
                continue;
            };
            if wants {
                port.insert("nodePort".to_owned(), self.take_any_port(taken)?.into());
            } else {
                port.remove("nodePort");
            }
        }
        let number = spec.get("healthCheckNodePort").and_then(Value::as_i64).unwrap_or_default();
        match (health, number) {
            (true, 0) => {
                spec.insert("healthCheckNodePort".to_owned(), self.take_any_port(taken)?.into());
            }
            (true, number) => self.take_port(number, &Path::new("spec.healthCheckNodePort"), before, taken)?,
            (false, _) => {
                spec.remove("healthCheckNodePort");
            }
        }
        Ok(())
    }

    fn take_any_port(&self, taken: &mut Held) -> Result<u16, Failure> {
        let index = self.pools.lock().ports.take_any(|_| false).ok_or(Failure::Full("nodePort"))?;
        let port = self.ports.start() + u16::try_from(index).map_err(|_| Failure::Full("nodePort"))?;
        taken.ports.push(port);
        Ok(port)
    }

    fn take_port(&self, number: i64, path: &Path, before: &Held, taken: &mut Held) -> Result<(), Failure> {
        let invalid = |detail: String| Failure::Field(FieldError::invalid(path, number, detail));
        let found = u16::try_from(number).ok().and_then(|p| self.port_index(p).map(|i| (p, i)));
        let Some((port, index)) = found else {
            return Err(invalid(format!(
                "provided port is not in the valid range. The range of valid ports is {}-{}",
                self.ports.start(),
                self.ports.end()
            )));
        };
        if before.ports.contains(&port) || taken.ports.contains(&port) {
            return Ok(());
        }
        if !self.pools.lock().ports.take(index) {
            return Err(invalid("provided port is already allocated".to_owned()));
        }
        taken.ports.push(port);
        Ok(())
    }

    fn release(&self, held: &Held) {
        if held.addresses.is_empty() && held.ports.is_empty() {
            return;
        }
        let mut pools = self.pools.lock();
        held.addresses.iter().filter_map(|a| self.address_index(*a)).for_each(|i| pools.addresses.release(i));
        held.ports.iter().filter_map(|p| self.port_index(*p)).for_each(|i| pools.ports.release(i));
    }

    fn address(&self, index: usize) -> Option<Ipv4Addr> {
        u32::from(self.cidr.network()).checked_add(u32::try_from(index).ok()? + 1).map(Ipv4Addr::from)
    }

    fn address_index(&self, address: Ipv4Addr) -> Option<usize> {
        let inside = self.cidr.contains(&address) && address != self.cidr.network() && address != self.cidr.broadcast();
        inside.then(|| (u32::from(address) - u32::from(self.cidr.network()) - 1) as usize)
    }

    fn port_index(&self, port: u16) -> Option<usize> {
        self.ports.contains(&port).then(|| usize::from(port - self.ports.start()))
    }
}

enum Failure {
    Field(FieldError),
    Full(&'static str),
}

#[cfg(test)]
#[path = "services_tests.rs"]
mod tests;
