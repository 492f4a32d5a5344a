//! The DNS server on the cluster address: hickory's transport, our answers.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use async_trait::async_trait;
use hickory_proto::op::{Metadata, OpCode, ResponseCode};
use hickory_proto::rr::rdata::{CNAME, PTR, SOA, SRV};
use hickory_proto::rr::{Name, RData, Record, RecordType};
use hickory_server::Server;
use hickory_server::net::runtime::Time;
use hickory_server::server::{Request, RequestHandler, ResponseHandler, ResponseInfo};
use hickory_server::zone_handler::MessageResponseBuilder;
use tokio_util::sync::CancellationToken;
use wherry_runtime::{SocketFamily, SocketKind};

use super::answers::{Answer, Zone};
use crate::place::{Place, listen};

/// Seconds that a client may keep an answer: short, since endpoints of headless Services move (CoreDNS' default).
const TTL: u32 = 5;
/// An idle TCP connection is closed after this.
const IDLE: Duration = Duration::from_secs(10);
/// Answers waiting for a slow TCP client, messages.
const TCP_BUFFER: usize = 32;

/// Binds the address in `place` and serves until cancelled.
pub(crate) async fn serve(
    place: &Place,
    ip: IpAddr,
    zone: Zone,
    cancel: CancellationToken,
) -> io::Result<impl Future<Output = ()> + use<>> {
    let addr = SocketAddr::new(ip, 53);
    let udp = socket2::Socket::from(place.socket(SocketFamily::V4, SocketKind::Udp)?);
    udp.bind(&addr.into())?;
    let tcp = listen(place.socket(SocketFamily::V4, SocketKind::Tcp)?, addr)?;
    let mut server = Server::new(Handler { zone });
    server.register_socket(tokio::net::UdpSocket::from_std(udp.into())?);
    server.register_listener(tcp, IDLE, TCP_BUFFER);
    Ok(async move {
        tokio::select! {
            result = server.block_until_done() => if let Err(error) = result {
                tracing::error!(%error, "the DNS server stopped");
            },
            () = cancel.cancelled() => {}
        }
    })
}

struct Handler {
    zone: Zone,
}

#[async_trait]
impl RequestHandler for Handler {
    async fn handle_request<R: ResponseHandler, T: Time>(&self, request: &Request, mut handle: R) -> ResponseInfo {
        let mut metadata = Metadata::response_from_request(&request.metadata);
        let (code, records) = match request.request_info() {
            Ok(info) if info.metadata.op_code == OpCode::Query => {
                self.records(&Name::from(info.query.name().clone()), info.query.query_type())
            }
            Ok(_) => (ResponseCode::NotImp, Vec::new()),
            Err(_) => (ResponseCode::FormErr, Vec::new()),
        };
        metadata.response_code = code;
        metadata.authoritative = matches!(code, ResponseCode::NoError | ResponseCode::NXDomain);
        let soa = (records.is_empty() && metadata.authoritative).then(|| self.soa()).flatten();
        let response = MessageResponseBuilder::from_message_request(request);
        match handle.send_response(response.build(metadata, records.iter(), [], soa.iter(), [])).await {
            Ok(info) => info,
            Err(error) => {
                tracing::debug!(%error, "a DNS client is gone");
                let mut header =
                    hickory_proto::op::Header { metadata, counts: hickory_proto::op::HeaderCounts::default() };
                header.metadata.response_code = ResponseCode::ServFail;
                header.into()
            }
        }
    }
}

impl Handler {
    fn records(&self, name: &Name, kind: RecordType) -> (ResponseCode, Vec<Record>) {
        let (addresses, services, alias, pointer) = match self.zone.answer(&name.to_ascii()) {
            Answer::Foreign => return (ResponseCode::Refused, Vec::new()),
            Answer::NoName => return (ResponseCode::NXDomain, Vec::new()),
            Answer::Records { addresses, services, alias, pointer } => (addresses, services, alias, pointer),
        };
        let wants = |wanted| kind == wanted || kind == RecordType::ANY;
        let mut data = Vec::new();
        if let Some(alias) = alias.and_then(|alias| absolute(&alias)) {
            data.push(RData::CNAME(CNAME(alias)));
        }
        for address in addresses {
            match address {
                IpAddr::V4(ip) if wants(RecordType::A) => data.push(RData::A(ip.into())),
                IpAddr::V6(ip) if wants(RecordType::AAAA) => data.push(RData::AAAA(ip.into())),
                _ => {}
            }
        }
        if wants(RecordType::SRV) {
            let weight = u16::try_from(100 / services.len().max(1)).unwrap_or(1);
            let records = services.iter().filter_map(|srv| Some((srv.port, absolute(&srv.target)?)));
            data.extend(records.map(|(port, target)| RData::SRV(SRV::new(0, weight, port, target))));
        }
        if let Some(pointer) = pointer.filter(|_| wants(RecordType::PTR)).and_then(|pointer| absolute(&pointer)) {
            data.push(RData::PTR(PTR(pointer)));
        }
        let records = data.into_iter().map(|data| Record::from_rdata(name.clone(), TTL, data)).collect();
        (ResponseCode::NoError, records)
    }

    /// The zone's authority: without it a client may not keep a negative answer.
    fn soa(&self) -> Option<Record> {
        let zone = absolute(&self.zone.domain)?;
        let server = absolute(&format!("ns.dns.{}", self.zone.domain))?;
        let mailbox = absolute(&format!("hostmaster.{}", self.zone.domain))?;
        let soa = SOA::new(server, mailbox, 1, 7200, 1800, 86400, TTL);
        Some(Record::from_rdata(zone, TTL, RData::SOA(soa)))
    }
}

fn absolute(name: &str) -> Option<Name> {
    Name::from_ascii(format!("{}.", name.trim_end_matches('.'))).ok()
}
