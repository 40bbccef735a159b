"""The WSDL 1.1 description of the header streaming service, for tools that make clients."""

from imaging_services.domain.streaming.soap import CONTRACT, SERVICE, SOAP_ACTION
from imaging_services.domain.streaming.text import attribute_xml

_FAULTS = {
    "StudyNotFoundFault": "",
    "StudyIsNearlineFault": '<xs:element minOccurs="0" name="IsStudyBeingRestored" type="xs:boolean"/>',
    "StudyIsInUseFault": '<xs:element minOccurs="0" name="StudyState" nillable="true" type="xs:string"/>',
}
_STRINGS = ("ReferenceID", "ServerAETitle", "StudyInstanceUID")
_POLICY = (
    '<wsp:Policy wsu:Id="mtom"><wsoma:OptimizedMimeSerialization'
    ' xmlns:wsoma="http://schemas.xmlsoap.org/ws/2004/09/policy/optimizedmimeserialization"/></wsp:Policy>'
)
_NAMESPACES = {
    "wsdl": "http://schemas.xmlsoap.org/wsdl/",
    "soap": "http://schemas.xmlsoap.org/wsdl/soap/",
    "xs": "http://www.w3.org/2001/XMLSchema",
    "wsp": "http://schemas.xmlsoap.org/ws/2004/09/policy",
    "wsu": "http://docs.oasis-open.org/wss/2004/01/oasis-200401-wss-wssecurity-utility-1.0.xsd",
    "t": SERVICE,
    "d": CONTRACT,
}


def wsdl(address: str) -> str:
    """The description, with the address that clients are to call."""
    namespaces = " ".join(f'xmlns:{prefix}="{uri}"' for prefix, uri in _NAMESPACES.items())
    return (
        f'<?xml version="1.0" encoding="utf-8"?>'
        f'<wsdl:definitions name="HeaderStreamingService" targetNamespace="{SERVICE}" {namespaces}>{_POLICY}'
        f"<wsdl:types>{_contract_schema()}{_service_schema()}</wsdl:types>{_messages()}{_port_type()}{_binding()}"
        '<wsdl:service name="HeaderStreamingService">'
        '<wsdl:port name="HeaderStreaming" binding="t:HeaderStreaming">'
        f'<soap:address location="{attribute_xml(address)}"/></wsdl:port></wsdl:service></wsdl:definitions>'
    )


def _contract_schema() -> str:
    strings = "".join(f'<xs:element name="{name}" nillable="true" type="xs:string"/>' for name in _STRINGS)
    parameters = f'<xs:element minOccurs="0" name="IgnoreInUse" type="xs:boolean"/>{strings}'
    types = {"HeaderStreamingParameters": parameters, **_FAULTS}
    return (
        f'<xs:schema elementFormDefault="qualified" targetNamespace="{CONTRACT}">'
        + "".join(
            f'<xs:complexType name="{name}"><xs:sequence>{content}</xs:sequence></xs:complexType>'
            f'<xs:element name="{name}" nillable="true" type="d:{name}"/>'
            for name, content in types.items()
        )
        + "</xs:schema>"
    )


def _service_schema() -> str:
    asked = (
        '<xs:element minOccurs="0" name="callingAETitle" nillable="true" type="xs:string"/>'
        '<xs:element minOccurs="0" name="parameters" nillable="true" type="d:HeaderStreamingParameters"/>'
    )
    answered = '<xs:element name="GetStudyHeaderResult" type="xs:base64Binary"/>'
    elements = "".join(
        f'<xs:element name="{name}"><xs:complexType><xs:sequence>{content}</xs:sequence></xs:complexType></xs:element>'
        for name, content in (("GetStudyHeader", asked), ("GetStudyHeaderResponse", answered))
    )
    return (
        f'<xs:schema elementFormDefault="qualified" targetNamespace="{SERVICE}">'
        f'<xs:import namespace="{CONTRACT}"/>{elements}</xs:schema>'
    )


def _messages() -> str:
    parts = {
        "Request": ("parameters", "t:GetStudyHeader"),
        "Response": ("parameters", "t:GetStudyHeaderResponse"),
        **{name: ("detail", f"d:{name}") for name in _FAULTS},
    }
    return "".join(
        f'<wsdl:message name="{name}"><wsdl:part name="{part}" element="{element}"/></wsdl:message>'
        for name, (part, element) in parts.items()
    )


def _port_type() -> str:
    faults = "".join(f'<wsdl:fault name="{name}" message="t:{name}"/>' for name in _FAULTS)
    return (
        '<wsdl:portType name="IHeaderStreamingService"><wsdl:operation name="GetStudyHeader">'
        f'<wsdl:input message="t:Request"/><wsdl:output message="t:Response"/>{faults}'
        "</wsdl:operation></wsdl:portType>"
    )


def _binding() -> str:
    faults = "".join(
        f'<wsdl:fault name="{name}"><soap:fault name="{name}" use="literal"/></wsdl:fault>' for name in _FAULTS
    )
    return (
        '<wsdl:binding name="HeaderStreaming" type="t:IHeaderStreamingService">'
        '<wsp:PolicyReference URI="#mtom"/>'
        '<soap:binding transport="http://schemas.xmlsoap.org/soap/http"/><wsdl:operation name="GetStudyHeader">'
        f'<soap:operation soapAction="{SOAP_ACTION}" style="document"/>'
        '<wsdl:input><soap:body use="literal"/></wsdl:input><wsdl:output><soap:body use="literal"/></wsdl:output>'
        f"{faults}</wsdl:operation></wsdl:binding>"
    )
