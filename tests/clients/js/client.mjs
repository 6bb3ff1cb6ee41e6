// Asks for credentials as any program with the AWS SDK for JavaScript does.
// Usage: node client.mjs identity | fetch N | renew
import { createRequire } from "node:module";

// The modules stand where the tests install them, not beside this file.
const load = createRequire(`${process.env.CLIENT_MODULES}/`);
const { STSClient, GetCallerIdentityCommand } = load("@aws-sdk/client-sts");
const { fromHttp, fromInstanceMetadata } = load("@aws-sdk/credential-providers");

async function identity() {
  const client = new STSClient({});
  const { accessKeyId } = await client.config.credentials();
  const { Arn } = await client.send(new GetCallerIdentityCommand({}));
  return { key: accessKeyId, arn: Arn };
}

// Asks the server itself, past the SDK's cache.
async function fetch(count) {
  const container = process.env.AWS_CONTAINER_CREDENTIALS_FULL_URI;
  for (let number = 0; number < count; number++) {
    const provider = container
      ? fromHttp({
          awsContainerCredentialsFullUri: container,
          awsContainerAuthorizationToken: process.env.AWS_CONTAINER_AUTHORIZATION_TOKEN,
          maxRetries: 0,
        })
      : fromInstanceMetadata({ maxRetries: 0 });
    await provider();
  }
  return { fetched: count };
}

async function renew() {
  const client = new STSClient({});
  const first = (await client.config.credentials()).accessKeyId;
  for (const end = Date.now() + 30000; Date.now() < end; ) {
    // It asks again in the background, so let it.
    await new Promise(setImmediate);
    const next = (await client.config.credentials()).accessKeyId;
    if (next !== first) {
      return { first, next };
    }
  }
  throw new Error("always the same credentials");
}

const [command, count] = process.argv.slice(2);
console.log(JSON.stringify(await { identity, fetch, renew }[command](Number(count))));
