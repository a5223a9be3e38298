//! Name resolution under guard: what the HTTP library connects to has been judged, or it gets no address at all.

use std::error::Error;
use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use reqwest::dns::{Addrs, Name, Resolve, Resolving};

use super::policy::{EgressPolicy, Scope};

/// From a name to its addresses.
pub type LookUp = dyn Fn(&str) -> io::Result<Vec<IpAddr>> + Send + Sync;

/// Where names are looked up.
#[derive(Clone)]
pub enum Resolver {
    /// The operating system: hosts file and name service.
    System,
    /// A function, so that a test decides what a name leads to, and when.
    Function(Arc<LookUp>),
}

impl fmt::Debug for Resolver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::System => "Resolver::System",
            Self::Function(_) => "Resolver::Function",
        })
    }
}

impl Resolver {
    async fn look_up(&self, name: &str) -> io::Result<Vec<IpAddr>> {
        match self {
            Self::System => {
                let found = tokio::net::lookup_host((name, 0)).await?;
                Ok(found.map(|address| address.ip()).collect())
            }
            Self::Function(function) => function(name),
        }
    }
}

/// The resolver of one reqwest client: answers only if **every** address of the name is in scope.
///
/// reqwest never asks it about literal addresses; those are judged with the URL.
pub(super) struct GuardedResolver {
    pub(super) resolver: Resolver,
    pub(super) policy: Arc<EgressPolicy>,
    pub(super) scope: Scope,
}

impl GuardedResolver {
    /// All addresses of a name, each judged.
    pub(super) async fn addresses(&self, name: &str) -> Result<Vec<IpAddr>, Box<dyn Error + Send + Sync>> {
        let addresses = self.resolver.look_up(name).await?;
        if addresses.is_empty() {
            return Err("the name has no address".into());
        }
        for address in &addresses {
            self.policy.judge(name, *address, self.scope)?;
        }
        Ok(addresses)
    }
}

impl Resolve for GuardedResolver {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = Self {
            resolver: self.resolver.clone(),
            policy: Arc::clone(&self.policy),
            scope: self.scope,
        };
        Box::pin(async move {
            let addresses = guard.addresses(name.as_str()).await?;
            // Port 0 stands for the port of the URL.
            let sockets = addresses.into_iter().map(|address| SocketAddr::new(address, 0));
            Ok(Box::new(sockets) as Addrs)
        })
    }
}
