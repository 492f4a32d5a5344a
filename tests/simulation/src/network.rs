//! What lies between the clients and the API server: time, and all that can go wrong on the way.
//!
//! A request may be late, be lost before the server saw it, be answered by somebody else (a proxy's 503, a 429, a conflict), or be
//! carried out and its answer lost. The events of a watch may be late, come twice, or break off, with or without an error.
//! A client may be cut off altogether for a while, and the server may end, with everything that is under way in it, and
//! begin anew over the same store. What is never done is what TCP and the API server never do: leave an event out of a
//! stream, or turn events around.

use std::{collections::BTreeMap, io, sync::Arc, time::Duration};

use bytes::Bytes;
use futures::{Stream, StreamExt as _, stream};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, StreamBody, combinators::UnsyncBoxBody};
use kube::client::Body;
use parking_lot::Mutex;
use rand::{Rng as _, rngs::StdRng};
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tower::BoxError;
use wherry_server::{Server, User};

use crate::witness::Witness;

/// How likely what can go wrong goes wrong.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Weather {
    /// A request is lost.
    pub(crate) lost: f64,
    /// An answer is lost.
    pub(crate) unanswered: f64,
    /// A request is refused although nothing is wrong with it.
    pub(crate) refused: f64,
    /// Something takes seconds, not milliseconds.
    pub(crate) late: f64,
    /// A watch breaks off at an event.
    pub(crate) cut: f64,
    /// An event comes twice.
    pub(crate) repeated: f64,
}

impl Weather {
    /// All of it in proportion.
    pub(crate) fn of(trouble: f64) -> Self {
        Self {
            lost: trouble,
            unanswered: trouble,
            refused: trouble,
            late: trouble * 2.0,
            cut: trouble,
            repeated: trouble,
        }
    }
}

struct State {
    random: StdRng,
    weather: Weather,
    /// Who is cut off, and until when.
    cut_off: BTreeMap<String, Instant>,
}

struct Shared {
    state: Mutex<State>,
    /// The server, and how many there were before it.
    server: watch::Sender<(u64, Server)>,
    witness: Arc<Witness>,
}

/// The way to the server. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Network {
    shared: Arc<Shared>,
}

type Answer = UnsyncBoxBody<Bytes, BoxError>;

/// What becomes of one request.
enum Fate {
    Served,
    Lost,
    Unanswered,
    Refused(StatusCode),
}

impl Network {
    pub(crate) fn new(random: StdRng, server: Server, witness: Arc<Witness>) -> Self {
        let state = State { random, weather: Weather::default(), cut_off: BTreeMap::new() };
        let server = watch::Sender::new((0, server));
        Self { shared: Arc::new(Shared { state: Mutex::new(state), server, witness }) }
    }

    pub(crate) fn set_weather(&self, weather: Weather) {
        self.shared.state.lock().weather = weather;
    }

    /// Nothing reaches the server from `actor` for so long, nor the other way round.
    pub(crate) fn cut_off(&self, actor: &str, time: Duration) {
        self.shared.state.lock().cut_off.insert(actor.to_owned(), Instant::now() + time);
    }

    /// Everybody reaches the server again.
    pub(crate) fn heal(&self) {
        let mut state = self.shared.state.lock();
        state.cut_off.clear();
        state.weather = Weather::default();
    }

    /// Another server takes over; what is under way in the present one ends.
    pub(crate) fn replace_server(&self, server: Server) {
        self.shared.server.send_modify(|(generation, current)| {
            *generation += 1;
            *current = server;
        });
    }

    /// The administrator's client, which nothing troubles.
    pub(crate) fn administrator(&self) -> kube::Client {
        self.client(User::admin(), None)
    }

    /// A client of `user`, who sits at `actor`.
    pub(crate) fn troubled(&self, user: User, actor: &str) -> kube::Client {
        self.client(user, Some(actor.to_owned()))
    }

    fn client(&self, user: User, actor: Option<String>) -> kube::Client {
        let network = self.clone();
        let (generation, server) = self.shared.server.borrow().clone();
        let current = Arc::new(Mutex::new((generation, server.client(user.clone()))));
        let (user, actor) = (Arc::new(user), actor.map(Arc::<str>::from));
        let service = tower::service_fn(move |request: Request<Body>| {
            let inner = network.current(&mut current.lock(), &user);
            let (network, user, actor) = (network.clone(), user.clone(), actor.clone());
            async move { network.carry(inner, &user, actor, request).await }
        });
        kube::Client::new(service, "default")
    }

    fn current(&self, known: &mut (u64, kube::Client), user: &User) -> kube::Client {
        let (generation, server) = &*self.shared.server.borrow();
        if known.0 != *generation {
            *known = (*generation, server.client(user.clone()));
        }
        known.1.clone()
    }

    async fn carry(
        &self,
        inner: kube::Client,
        user: &User,
        actor: Option<Arc<str>>,
        request: Request<Body>,
    ) -> Result<Response<Answer>, BoxError> {
        let mut generation = self.shared.server.subscribe();
        let fate = match actor.as_deref() {
            Some(actor) => {
                tokio::time::sleep(self.delay()).await;
                self.fate(actor, request.method())
            }
            None => Fate::Served,
        };
        match fate {
            Fate::Lost => return Err(broken("lost on the way")),
            Fate::Refused(code) => return Ok(refusal(code)),
            Fate::Served | Fate::Unanswered => {}
        }
        let is_stream = request.uri().query().is_some_and(|query| query.contains("watch=true"));
        let (method, path) = (request.method().clone(), request.uri().path().to_owned());
        let asked = self.shared.witness.asked(&user.name, &method, &path);
        let served = inner.send(request);
        let response = tokio::select! {
            biased;
            _ = generation.changed() => Err(broken("the server ended")),
            response = served => response.map_err(BoxError::from),
        };
        if let (Some(asked), Ok(response)) = (asked, &response) {
            self.shared.witness.answered(asked, response.status());
        }
        let is_unheard = response.is_err() || matches!(fate, Fate::Unanswered);
        if is_unheard {
            self.shared.witness.unheard(&method, &path);
        }
        let response = response?;
        let Some(actor) = actor else { return Ok(response.map(whole)) };
        if is_unheard {
            tokio::time::sleep(self.delay()).await;
            return Err(broken("the answer is lost"));
        }
        tokio::time::sleep(self.delay()).await;
        if !is_stream {
            return Ok(response.map(whole));
        }
        let network = self.clone();
        Ok(response.map(|body| {
            let frames = network.events(actor, generation, body).map(|chunk| chunk.map(http_body::Frame::data));
            StreamBody::new(frames).map_err(BoxError::from).boxed_unsync()
        }))
    }

    fn delay(&self) -> Duration {
        let mut state = self.shared.state.lock();
        let late = state.weather.late;
        let most = if state.random.random_bool(late) { 8000 } else { 3 };
        Duration::from_millis(state.random.random_range(0..most))
    }

    fn fate(&self, actor: &str, method: &Method) -> Fate {
        let mut state = self.shared.state.lock();
        let State { random, weather, cut_off } = &mut *state;
        if cut_off.get(actor).is_some_and(|until| *until > Instant::now()) || random.random_bool(weather.lost) {
            return Fate::Lost;
        }
        if random.random_bool(weather.unanswered) {
            return Fate::Unanswered;
        }
        if random.random_bool(weather.refused) {
            let codes = [StatusCode::SERVICE_UNAVAILABLE, StatusCode::TOO_MANY_REQUESTS, StatusCode::CONFLICT];
            // A conflict is an answer to those who change what is there.
            let changes = matches!(*method, Method::PUT | Method::PATCH);
            return Fate::Refused(codes[random.random_range(0..if changes { 3 } else { 2 })]);
        }
        Fate::Served
    }

    /// What becomes of the events of a watch.
    fn events(
        self,
        actor: Arc<str>,
        generation: watch::Receiver<(u64, Server)>,
        body: Body,
    ) -> impl Stream<Item = Result<Bytes, io::Error>> + Send {
        let events = body.into_data_stream();
        stream::unfold(Some((self, actor, generation, events, None)), |state| async move {
            let (network, actor, mut generation, mut events, again) = state?;
            if let Some(again) = again {
                return Some((Ok(again), Some((network, actor, generation, events, None))));
            }
            let chunk = tokio::select! {
                biased;
                _ = generation.changed() => return Some((Err(reset()), None)),
                chunk = events.next() => chunk?,
            };
            let Ok(chunk) = chunk else { return Some((Err(reset()), None)) };
            tokio::time::sleep(network.delay()).await;
            let (cut, repeated) = {
                let mut state = network.shared.state.lock();
                let State { random, weather, cut_off } = &mut *state;
                let cut_off = cut_off.get(&*actor).is_some_and(|until| *until > Instant::now());
                (cut_off || random.random_bool(weather.cut), random.random_bool(weather.repeated))
            };
            match cut {
                // Both ways in which streams end.
                true if chunk.len() % 2 == 0 => None,
                true => Some((Err(reset()), None)),
                false => {
                    let again = if repeated { last_line(&chunk) } else { None };
                    Some((Ok(chunk), Some((network, actor, generation, events, again))))
                }
            }
        })
    }
}

fn whole(body: Body) -> Answer {
    body.map_err(BoxError::from).boxed_unsync()
}

/// The last event of a chunk, if it ends there.
fn last_line(chunk: &Bytes) -> Option<Bytes> {
    let before = chunk.strip_suffix(b"\n")?;
    let begin = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    Some(chunk.slice(begin..))
}

fn reset() -> io::Error {
    io::Error::from(io::ErrorKind::ConnectionReset)
}

fn broken(why: &str) -> BoxError {
    io::Error::new(io::ErrorKind::ConnectionReset, why.to_owned()).into()
}

fn refusal(code: StatusCode) -> Response<Answer> {
    let reason = match code {
        StatusCode::CONFLICT => "Conflict",
        StatusCode::TOO_MANY_REQUESTS => "TooManyRequests",
        _ => "ServiceUnavailable",
    };
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "bad weather", "reason": reason, "code": code.as_u16(),
    });
    let mut response = Response::new(whole(Body::from(status.to_string().into_bytes())));
    *response.status_mut() = code;
    response
}
