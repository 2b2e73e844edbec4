// Package attack has attacks on tenants' control planes from outside, as tests on real
// ones: an attacker's and a victim's, in one process and behind one front door, as in
// production. Each has a positive control: the same prober is let through where it
// may. The kubelet behind them records what it is asked, so a test sees what would
// have reached a node.
//
// Other attacks are tested where their target is. All of them:
//
//	front door, identity, listeners
//	A01 certificate of another tenant      tenant-apiserver/server TestCertificateOfAnotherTenantIsRefused
//	A02 token of another tenant            tenant-apiserver/server TestServiceAccountTokens, TestIssuers
//	A03 server name and host differ        TestServerNameDecides; frontdoor TestRoutesByServerName
//	A04 identity in headers                TestForgedHeaders
//	A05 headers that strip headers         TestForgedHeaders
//	A06 tokens that are none               TestBrokenTokens; authn TestTokens
//	A07 certificate by request             tenant-apiserver/server TestCertificateSigningRequests
//	A08 a tenant of the same name again    TestSameNameAgain
//	A09 revoked with streams open          tenant-apiserver/server TestRevoke, test/e2e TestRevokeAndRotate
//	A10 names of tenants                   isolation/tenant, tenant-apiserver/manager TestManager
//	A11 listeners                          cmd/sublet audit, test/e2e TestTwoTenants
//	A12 without credentials                tenant-apiserver/server TestAnonymousSeesHealthOnly
//	A13 objects made with our rights       none: no feature makes host objects of a tenant's text
//	A14 another tenant's syncer            isolation/baseline
//	A15 slow, idle and reset connections   TestRapidReset; frontdoor TestSlowClients, TestPerTenantLimit
//
//	streams and subresources
//	I01 names that lead elsewhere          TestNamesInPaths; test/syncer TestStreams
//	I02 ports that are not the pod's       test/syncer TestStreams, test/node
//	I03 forged status and endpoints        tenant-apiserver/server TestProxySubresources
//	I04 the proxy of nodes                 TestProxyOfNodes; test/e2e TestExtensions
//	I05 metrics of others                  tenant-apiserver/server TestMetricsAreTheTenantsOwn
//	I06 token for somebody else            TestTokenForSomebodyElse
//	I07 subresources without the checks    TestEverySubresourceIsDecided, TestPrivilegeByEveryWay
//	I08 a log that is a link               host-agent (kubelet)
//	I09, I10 the client's machine          upstream's kubectl
//
//	the control plane as a proxy
//	J01 webhook by URL                     tenant-apiserver/server TestWebhooks, dialer TestNames, TestRedirect
//	J02 webhook by Service                 tenant-apiserver/server TestWebhooks
//	J03 APIService                         tenant-apiserver/server TestAggregatedAPI
//	J04 conversion webhook                 tenant-apiserver/server TestConversionWebhook
//	J05 issuer, audit webhook              tenant-apiserver/server TestIssuersTakeTheDialer, authn TestWays; a tenant writes neither
//	J06 registries                         host-agent: pulls are the node's, not the control plane's
//	J07 cloud and storage controllers      none runs for a tenant
//	J08 probes                             isolation/policy
//	J09 URLs in our own objects            api: none that a tenant writes
package attack
