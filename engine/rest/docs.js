SwaggerUIBundle({
  dom_id: '#swagger-ui',
  url: '/openapi.json',
  deepLinking: true,
  defaultModelsExpandDepth: 0,
  displayRequestDuration: true,
  persistAuthorization: false, // a token must not stay behind in the browser
  tryItOutEnabled: true,
  validatorUrl: null, // the document is not sent anywhere
});
