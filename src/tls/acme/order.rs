//! One order, from the account to the chain.

use instant_acme::{
    Account, AuthorizationStatus, AuthorizedIdentifier, ChallengeType, Identifier, NewAccount, NewOrder,
    Order, OrderStatus, RetryPolicy,
};

use super::cache::Cache;
use super::challenges::Answers;
use super::web::Web;
use super::{AcmeError, Challenges, Issued, PATIENCE, Settings};

/// The authority that certificates are ordered from.
#[derive(Debug)]
pub(super) struct Authority {
    settings: Settings,
    web: Web,
    challenges: Challenges,
}

impl Authority {
    pub(super) fn new(settings: Settings) -> Result<Self, AcmeError> {
        Ok(Self {
            web: Web::new(settings.directory_ca_file.as_deref())?,
            challenges: Challenges::default(),
            settings,
        })
    }

    pub(super) fn domains(&self) -> &[String] {
        &self.settings.domains
    }

    pub(super) fn url(&self) -> &str {
        &self.settings.directory_url
    }

    pub(super) fn challenges(&self) -> Challenges {
        self.challenges.clone()
    }

    /// Proves that the names are ours, and has them certified under a key made for this order.
    pub(super) async fn order(&self, cache: &Cache) -> Result<Issued, AcmeError> {
        let identifiers: Vec<Identifier> = self.domains().iter().cloned().map(Identifier::Dns).collect();
        let mut order = self.begin(cache, &NewOrder::new(&identifiers)).await?;
        let answers = self.challenges.begin();
        ask_for_validation(&mut order, &answers).await?;
        let retries = RetryPolicy::default().timeout(PATIENCE);
        let ready = order.poll_ready(&retries).await;
        drop(answers);
        if !matches!(ready, Ok(OrderStatus::Ready)) {
            let reasons = reasons(&mut order).await?;
            return Err(match ready {
                Err(error) if reasons.is_empty() => error.into(),
                _ => AcmeError::NotVerified { reasons },
            });
        }
        let key = order.finalize().await?;
        let chain = order.poll_certificate(&retries).await?;
        Ok(Issued { chain, key })
    }

    /// An order under our account; under another one if the authority has forgotten that, as test authorities do.
    async fn begin(&self, cache: &Cache, order: &NewOrder<'_>) -> Result<Order, AcmeError> {
        let kept = self.account(cache).await?;
        match kept.new_order(order).await {
            Err(instant_acme::Error::Api(problem))
                if problem.r#type.as_deref() == Some("urn:ietf:params:acme:error:accountDoesNotExist") =>
            {
                tracing::warn!("the authority does not know our account any more; making another");
                cache.forget_account()?;
                Ok(self.account(cache).await?.new_order(order).await?)
            }
            other => Ok(other?),
        }
    }

    async fn account(&self, cache: &Cache) -> Result<Account, AcmeError> {
        let builder = Account::builder_with_http(Box::new(self.web.clone()));
        if let Some(kept) = cache.account() {
            return Ok(builder.from_credentials(kept).await?);
        }
        let contact = self
            .settings
            .contact
            .as_ref()
            .map(|mail| format!("mailto:{mail}"));
        let contact: Vec<&str> = contact.iter().map(String::as_str).collect();
        let wanted = NewAccount {
            contact: &contact,
            terms_of_service_agreed: true,
            only_return_existing: false,
        };
        let directory = self.settings.directory_url.clone();
        let (account, credentials) = builder.create(&wanted, directory, None).await?;
        cache.keep_account(&credentials)?;
        Ok(account)
    }
}

/// Puts the answers in place and tells the authority to look for them.
async fn ask_for_validation(order: &mut Order, answers: &Answers<'_>) -> Result<(), AcmeError> {
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        // It may be valid from an order of a short time ago.
        if authorization.status != AuthorizationStatus::Pending {
            continue;
        }
        let name = named(&authorization.identifier());
        let mut challenge = authorization
            .challenge(ChallengeType::Http01)
            .ok_or(AcmeError::NoHttp01(name))?;
        answers.add(&challenge.token, challenge.key_authorization().as_str());
        challenge.set_ready().await?;
    }
    Ok(())
}

/// What the authority said of each name that it could not verify.
async fn reasons(order: &mut Order) -> Result<String, AcmeError> {
    let mut reasons = Vec::new();
    let mut authorizations = order.authorizations();
    while let Some(authorization) = authorizations.next().await {
        let mut authorization = authorization?;
        let state = authorization.refresh().await?;
        let said = state
            .challenges
            .iter()
            .find_map(|challenge| challenge.error.as_ref());
        if let Some(problem) = said {
            let detail = problem.detail.as_deref().unwrap_or("it did not say why");
            reasons.push(format!("{}: {detail}", named(&state.identifier())));
        }
    }
    Ok(reasons.join("; "))
}

fn named(identifier: &AuthorizedIdentifier<'_>) -> String {
    identifier.to_string()
}
