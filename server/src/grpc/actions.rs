//! The service `deed.v1.Actions`.

use deed_proto::v1::{self, actions_server::Actions};
use tonic::{Request, Response, Status};

use super::{Answers, Context, clearance, findings, search, task};
use deed_engine::pressure::answers::PAGE_ROOM;

use crate::access::{Caller, table::Method};

pub(crate) struct ActionsService(pub(crate) Context);

#[tonic::async_trait]
impl Actions for ActionsService {
    type AwaitClearanceStream = Answers<v1::ClearanceResponse>;

    async fn await_clearance(
        &self,
        request: Request<v1::AwaitClearanceRequest>,
    ) -> Result<Response<Self::AwaitClearanceStream>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::AwaitClearance, request).await?;
        let answers = clearance::watch(&self.0, caller, &ledger, request.intent_leaf).await?;
        Ok(answers)
    }

    async fn request_task_receipt(
        &self,
        request: Request<v1::RequestTaskReceiptRequest>,
    ) -> Result<Response<v1::RequestTaskReceiptResponse>, Status> {
        let caller = Caller::of(request.extensions());
        let request = request.into_inner();
        let ledger = self
            .0
            .ledger(&caller, Method::RequestTaskReceipt, &request.ledger)
            .await?;
        task::receipt(&self.0, &caller, ledger, &request.task).await
    }

    type GetTaskStream = Answers<v1::GetTaskResponse>;

    async fn get_task(
        &self,
        request: Request<v1::GetTaskRequest>,
    ) -> Result<Response<Self::GetTaskStream>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::GetTask, request).await?;
        let answers = task::story(&self.0, caller, ledger, &request.task).await?;
        Ok(answers)
    }

    type SearchStream = Answers<v1::SearchResponse>;

    async fn search(
        &self,
        request: Request<v1::SearchRequest>,
    ) -> Result<Response<Self::SearchStream>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::Search, request).await?;
        let answers = search::answers(&self.0, caller, ledger, &request)?;
        Ok(answers)
    }

    async fn list_findings(
        &self,
        request: Request<v1::ListFindingsRequest>,
    ) -> Result<Response<v1::ListFindingsResponse>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::ListFindings, request).await?;
        let asked = findings::List::parse(request)?;
        let store = self.0.registry.store().clone();
        self.0
            .answer_for(&caller, PAGE_ROOM, move || asked.page(&store, &ledger))
            .await
    }

    type WatchFindingsStream = Answers<v1::WatchFindingsResponse>;

    async fn watch_findings(
        &self,
        request: Request<v1::WatchFindingsRequest>,
    ) -> Result<Response<Self::WatchFindingsStream>, Status> {
        let (caller, ledger, request) = self.0.begin_read(Method::WatchFindings, request).await?;
        let answers = findings::watch(&self.0, caller, &ledger, request)?;
        Ok(answers)
    }
}
