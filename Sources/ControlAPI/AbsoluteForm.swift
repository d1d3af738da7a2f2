import NIOCore
import NIOHTTP1
import NIOHTTPTypesHTTP1

/// A request target with an authority of its own counts, and not the Host field (RFC 9112, 3.2.2). The conversion to
/// `HTTPRequest` drops it, so it is put into the Host field before.
final class AbsoluteFormHandler: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = HTTPServerRequestPart
    typealias InboundOut = HTTPServerRequestPart

    func channelRead(context: ChannelHandlerContext, data: NIOAny) {
        guard case .head(var head) = unwrapInboundIn(data), !head.uri.hasPrefix("/"), head.uri != "*" else {
            return context.fireChannelRead(data)
        }
        let parts = head.uri.split(separator: "://", maxSplits: 1, omittingEmptySubsequences: false)
        // Two Host fields stay two, and are refused; a target without an authority is refused as an empty one.
        if head.headers["Host"].count <= 1 {
            let authority = parts.count == 2 ? String(parts[1].prefix { !"/?#".contains($0) }) : ""
            head.headers.replaceOrAdd(name: "Host", value: authority)
        }
        context.fireChannelRead(wrapInboundOut(.head(head)))
    }
}

/// Hummingbird adds handlers behind the conversion; this one puts the other before it.
final class AbsoluteFormInstaller: ChannelInboundHandler, RemovableChannelHandler {
    typealias InboundIn = Any

    func handlerAdded(context: ChannelHandlerContext) {
        do {
            let pipeline = context.pipeline.syncOperations
            let conversion = try pipeline.context(handlerType: HTTP1ToHTTPServerCodec.self)
            try pipeline.addHandler(AbsoluteFormHandler(), position: .before(conversion.handler))
        } catch {
            // Without it the connection would take foreign authorities for ours.
            context.close(promise: nil)
        }
    }

    func channelRead(context: ChannelHandlerContext, data: NIOAny) { context.fireChannelRead(data) }
}
