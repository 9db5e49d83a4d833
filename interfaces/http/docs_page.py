"""/docs: the description of the interface to read and to try, from files of this install.

No content delivery network, and no address in the page: what a Host header says never gets there.
"""

from fastapi import FastAPI
from fastapi.openapi.docs import get_swagger_ui_html
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.staticfiles import StaticFiles


def add_docs(app: FastAPI) -> None:
    """Serve /docs and what it loads."""
    page = get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=f"{app.title} - REST interface",
        swagger_js_url="/swagger/swagger-ui-bundle.js",
        swagger_css_url="/swagger/swagger-ui.css",
        swagger_favicon_url="/swagger/favicon-32x32.png",
        swagger_ui_parameters={"filter": True, "displayRequestDuration": True},
    )

    @app.get("/docs", include_in_schema=False)
    async def show_docs() -> HTMLResponse:
        return page

    @app.get("/", include_in_schema=False)
    async def show_start() -> RedirectResponse:
        return RedirectResponse("/docs")

    assets = StaticFiles(packages=[("fastapi_swagger", "resources")])
    app.mount("/swagger", assets, name="swagger")
