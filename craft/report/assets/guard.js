// Whatever goes wrong in the page is marked on the document, where a reader or a test finds it.
addEventListener("error", (event) => {
  document.documentElement.dataset.error = String(event.message);
});
addEventListener("unhandledrejection", (event) => {
  document.documentElement.dataset.error = String(event.reason);
});
addEventListener("securitypolicyviolation", (event) => {
  document.documentElement.dataset.blocked = String(event.violatedDirective);
});
