//! What the server listens on, what is served where, and the certificate it is served with.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;

use super::descriptors;
use crate::clock::Clock;
use crate::config::Config;
use crate::http::{self, App, Limits, Routes, Transport};
use crate::shutdown::Tasks;
use crate::store::data_dir::DataDir;
use crate::tls::{Acme, AcmeSettings, Files, Pair, Served, cache_dir};

/// All addresses, bound; nothing is accepted yet.
pub(super) struct Listeners {
    callbacks: TcpListener,
    admin: Option<TcpListener>,
    acme: Option<TcpListener>,
}

impl Listeners {
    /// Binds what the configuration names. Must be called within a runtime.
    pub(super) fn bind(config: &Config) -> anyhow::Result<Self> {
        let acme = config.tls.acme.is_on().then(|| config.acme_listen());
        Ok(Self {
            callbacks: bind(config.listen, "listen")?,
            admin: optional(config.admin_listen, "admin_listen")?,
            acme: optional(acme, "tls.acme.http_listen")?,
        })
    }

    /// Where callbacks are taken; the port is real even if 0 was asked for.
    pub(super) fn addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.callbacks.local_addr()?)
    }

    /// Where the API is served.
    pub(super) fn api_addr(&self) -> anyhow::Result<SocketAddr> {
        Ok(self.admin.as_ref().unwrap_or(&self.callbacks).local_addr()?)
    }

    /// Accepts connections until the soft stop, with a certificate if there is to be one.
    pub(super) fn serve(self, config: &Config, app: &App, certificate: Option<Certificate>, tasks: &Tasks) {
        let limits = limits(config);
        let serve = |listener, transport, served| {
            tasks.spawn(http::serve(
                listener,
                transport,
                served,
                limits.clone(),
                tasks.clone(),
            ));
        };
        let transport = || transport(certificate.as_ref().map(Certificate::served));
        match self.admin {
            None => serve(self.callbacks, transport(), http::served(app, Routes::All)),
            Some(admin) => {
                serve(self.callbacks, transport(), http::served(app, Routes::Callbacks));
                let transport = if config.api_speaks_tls() {
                    transport()
                } else {
                    Transport::Plain
                };
                serve(admin, transport, http::served(app, Routes::Api));
            }
        }
        if let (Some(listener), Some(Certificate::Obtained(acme))) = (self.acme, &certificate) {
            let router = http::challenge_router(acme.challenges());
            serve(listener, Transport::Plain, router.into());
        }
        match certificate {
            Some(Certificate::Read(files)) => drop(tasks.spawn(files.run(tasks.clone()))),
            Some(Certificate::Obtained(acme)) => drop(tasks.spawn(acme.run(tasks.clone()))),
            None => {}
        }
    }
}

/// The same for each listener, and counted for each by itself: a crowd at one does not keep the other from answering.
fn limits(config: &Config) -> Limits {
    Limits {
        header_timeout: config.ingest.header_timeout,
        write_timeout: config.ingest.write_timeout,
        max_connections: descriptors::connections(config),
        max_connections_per_address: config.ingest.max_connections_per_address,
        trusted_proxies: config.trusted_proxies.clone(),
    }
}

fn optional(address: Option<SocketAddr>, key: &str) -> anyhow::Result<Option<TcpListener>> {
    address.map(|address| bind(address, key)).transpose()
}

fn bind(address: SocketAddr, key: &str) -> anyhow::Result<TcpListener> {
    http::listen(address).with_context(|| {
        format!("cannot listen on {address}; stop what uses the port, or set another `{key}`")
    })
}

fn transport(served: Option<Served>) -> Transport {
    match served {
        Some(served) => Transport::Tls(TlsAcceptor::from(Arc::new(served.server_config()))),
        None => Transport::Plain,
    }
}

/// Where the certificate comes from.
pub(super) enum Certificate {
    /// From the operator's files.
    Read(Files),
    /// From an authority.
    Obtained(Acme),
}

impl Certificate {
    /// What the configuration says, if it says anything. `again` is rung to have it looked at at once.
    pub(super) fn of(
        config: &Config,
        data: &DataDir,
        clock: Clock,
        again: Arc<Notify>,
    ) -> anyhow::Result<Option<Self>> {
        if config.tls.acme.is_on() {
            let acme = Acme::open(acme_settings(config, data), clock, again)?;
            return Ok(Some(Self::Obtained(acme)));
        }
        let files = pair(config).map(|pair| Files::open(pair, clock, again));
        Ok(files.transpose()?.map(Self::Read))
    }

    pub(super) fn served(&self) -> Served {
        match self {
            Self::Read(files) => files.served(),
            Self::Obtained(acme) => acme.served(),
        }
    }
}

/// The operator's certificate files.
pub(super) fn pair(config: &Config) -> Option<Pair> {
    Some(Pair {
        cert_file: config.tls.cert_file.clone()?,
        key_file: config.tls.key_file.clone()?,
    })
}

fn acme_settings(config: &Config, data: &DataDir) -> AcmeSettings {
    let acme = &config.tls.acme;
    AcmeSettings {
        domains: acme.domains.clone(),
        contact: acme.contact.clone(),
        directory_url: acme.directory_url.to_string(),
        directory_ca_file: acme.directory_ca_file.clone(),
        cache_dir: cache_dir(&data.acme(), acme.directory_url.as_str()),
    }
}
