// Command client asks for credentials as any program with the AWS SDK for Go does.
//
// Usage: client identity | client fetch N | client renew
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/aws/aws-sdk-go-v2/config"
	"github.com/aws/aws-sdk-go-v2/credentials/ec2rolecreds"
	"github.com/aws/aws-sdk-go-v2/credentials/endpointcreds"
	"github.com/aws/aws-sdk-go-v2/feature/ec2/imds"
	"github.com/aws/aws-sdk-go-v2/service/sts"
)

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func identity(ctx context.Context) map[string]any {
	cfg, err := config.LoadDefaultConfig(ctx)
	check(err)
	keys, err := cfg.Credentials.Retrieve(ctx)
	check(err)
	answer, err := sts.NewFromConfig(cfg).GetCallerIdentity(ctx, nil)
	check(err)
	return map[string]any{"key": keys.AccessKeyID, "arn": *answer.Arn}
}

// fetch asks the server itself count times, past the SDK's cache.
func fetch(ctx context.Context, count int) map[string]any {
	for number := 0; number < count; number++ {
		if uri := os.Getenv("AWS_CONTAINER_CREDENTIALS_FULL_URI"); uri != "" {
			provider := endpointcreds.New(uri, func(o *endpointcreds.Options) {
				o.AuthorizationToken = os.Getenv("AWS_CONTAINER_AUTHORIZATION_TOKEN")
			})
			_, err := provider.Retrieve(ctx)
			check(err)
		} else {
			provider := ec2rolecreds.New(func(o *ec2rolecreds.Options) {
				o.Client = imds.New(imds.Options{Endpoint: os.Getenv("AWS_EC2_METADATA_SERVICE_ENDPOINT")})
			})
			_, err := provider.Retrieve(ctx)
			check(err)
		}
	}
	return map[string]any{"fetched": count}
}

func renew(ctx context.Context) map[string]any {
	cfg, err := config.LoadDefaultConfig(ctx)
	check(err)
	first, err := cfg.Credentials.Retrieve(ctx)
	check(err)
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); {
		next, err := cfg.Credentials.Retrieve(ctx)
		check(err)
		if next.AccessKeyID != first.AccessKeyID {
			return map[string]any{"first": first.AccessKeyID, "next": next.AccessKeyID}
		}
	}
	check(fmt.Errorf("always the same credentials"))
	return nil
}

func main() {
	ctx := context.Background()
	var answer map[string]any
	switch os.Args[1] {
	case "identity":
		answer = identity(ctx)
	case "fetch":
		count, err := strconv.Atoi(os.Args[2])
		check(err)
		answer = fetch(ctx, count)
	case "renew":
		answer = renew(ctx)
	}
	check(json.NewEncoder(os.Stdout).Encode(answer))
}
